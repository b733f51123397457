"""Server: models answer HTTP requests in the forms of OpenAI's API.

fields.py       JSON bodies parsed into dataclasses, every field with its type, range and one line of description
field_rules.py  ranges and lengths of fields, and the checks of single values
context.py      what a route reads of the server, and what it counts
openapi.py      routes, and their description made from the dataclasses
errors.py       errors as JSON in OpenAI's form, with HTTP statuses
"""
