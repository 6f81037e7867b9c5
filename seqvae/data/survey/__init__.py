"""What a file holds and what each entry may be: guesses with their reasons, or one question."""

from seqvae.data.survey.guess import Plan as Plan
from seqvae.data.survey.guess import guess as guess
from seqvae.data.survey.guess import guessed_plan as guessed_plan
from seqvae.data.survey.outlook import Outlook as Outlook
from seqvae.data.survey.outlook import outlook as outlook
from seqvae.data.survey.sessions import settled_source as settled_source
