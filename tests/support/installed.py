"""The installed fixtures, opened once: what one test module has read, no other reads and checks again."""

from gemma4_contract import Fixtures

FIXTURES = Fixtures()
