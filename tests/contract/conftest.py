"""A writer and its rival, on one PostgreSQL."""

from tests.postgres import rival as rival
from tests.postgres import url as url
from tests.postgres import writer as writer
