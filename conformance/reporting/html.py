"""Pages: a template of ours with values in it."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def render_page(template: str, **values: object) -> str:
    """The HTML of a template in `conformance/reporting/templates`; what the values hold is text and no markup."""
    environment = Environment(
        loader=PackageLoader("conformance.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
