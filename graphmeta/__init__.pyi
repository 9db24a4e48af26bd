"""The public API as editors and type checkers see it; see ``__init__.py``."""

from graphmeta import datasets as datasets
from graphmeta import nn as nn
from graphmeta import plots as plots
from graphmeta.adapt.adaptation import Adaptation as Adaptation
from graphmeta.adapt.scope import Scope as Scope
from graphmeta.adapt.step import Gradient as Gradient
from graphmeta.adapt.step import LearnedRates as LearnedRates
from graphmeta.data.events import EventLog as EventLog
from graphmeta.data.graph import build_graph as build_graph
from graphmeta.data.read_options import ActionWeights as ActionWeights
from graphmeta.data.read_options import Inactivity as Inactivity
from graphmeta.data.read_options import ReadOptions as ReadOptions
from graphmeta.data.splits import split_by_item as split_by_item
from graphmeta.data.splits import split_by_time as split_by_time
from graphmeta.data.splits import split_by_user as split_by_user
from graphmeta.data.tables import EntityTable as EntityTable
from graphmeta.errors import InputError as InputError
from graphmeta.evaluation import metrics as metrics
from graphmeta.evaluation.next_basket import evaluate_next_basket as evaluate_next_basket
from graphmeta.evaluation.ranking import evaluate as evaluate
from graphmeta.published.catalogue import build as build
from graphmeta.published.fit import fit as fit
from graphmeta.published.load import load as load
from graphmeta.published.options import UserTasks as UserTasks
from graphmeta.published.systems import systems as systems
from graphmeta.recommender import Recommender as Recommender
from graphmeta.sampling.batch_rows import NEXT as NEXT
from graphmeta.sampling.batch_rows import OF as OF
from graphmeta.sampling.samples import last_clicks as last_clicks
from graphmeta.sampling.samples import prefixes as prefixes
from graphmeta.sampling.session_batch import session_batch as session_batch
from graphmeta.sampling.subgraph import SubgraphSampler as SubgraphSampler
from graphmeta.sampling.tasks import Tasks as Tasks
from graphmeta.sampling.user_histories import UserHistories as UserHistories
from graphmeta.system import System as System
from graphmeta.testing import check_encoder as check_encoder
from graphmeta.training.callbacks import Callback as Callback
from graphmeta.training.loop import train as train
from graphmeta.training.optimizers import Adam as Adam
from graphmeta.training.recipes import FULL_SOFTMAX as FULL_SOFTMAX
from graphmeta.training.recipes import TrainingRecipe as TrainingRecipe
from graphmeta.training.settings import TrainOptions as TrainOptions

__version__: str
