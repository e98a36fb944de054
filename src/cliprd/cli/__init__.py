"""The command line: a module for each group of commands, with their parsers beside what they call."""

from cliprd.cli.main import main as main
from cliprd.cli.main import parser as parser
