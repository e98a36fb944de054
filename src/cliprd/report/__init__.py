"""Tables, charts and the HTML page of a comparison. Imports the ground floor only."""
