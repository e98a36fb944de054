"""Scores, intervals and verdicts: everything that cliprd says of a number with an interval comes from here."""
