"""Renders pages from our templates."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def render_page(template: str, **values: object) -> str:
    """The HTML of a template in `conformance/reporting/templates`; values are escaped text, not markup."""
    environment = Environment(
        loader=PackageLoader("conformance.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
