"""One self-contained page of what runs and cross-validations say: values in, HTML out.

A file builds one section, from values to charts and words; ``page.py`` puts them together.
"""

from seqvae.pages.page import page as page
from seqvae.pages.results import Result as Result
from seqvae.pages.results import gather as gather
from seqvae.pages.sections import sections as sections
