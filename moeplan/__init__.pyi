# Generated; renew it with: python -m tests.generated --write
from moeplan.architecture.shape import Architecture as Architecture
from moeplan.cost.inference_memory import InferenceSettings as InferenceSettings
from moeplan.cost.serving.demand import Demand as Demand
from moeplan.errors import InfeasibleError as InfeasibleError
from moeplan.errors import LawError as LawError
from moeplan.errors import MoeplanError as MoeplanError
from moeplan.errors import UsageError as UsageError
from moeplan.fitting import FittedLaw as FittedLaw
from moeplan.fitting import fit as fit
from moeplan.fitting import law_text as law_text
from moeplan.laws import Law as Law
from moeplan.laws import law_names as law_names
from moeplan.laws import load_law as load_law
from moeplan.plan.budget import Budget as Budget
from moeplan.plan.document import Plan as Plan
from moeplan.plan.document import plan_schema as plan_schema
from moeplan.plan.document import read_plan as read_plan
from moeplan.plan.export import export as export
from moeplan.plan.inverse import recommend_for as recommend_for
from moeplan.plan.planner import recommend as recommend
from moeplan.studies.backtest.run import backtest as backtest
from moeplan.studies.comparison import compare as compare
from moeplan.studies.frontier import frontier as frontier
from moeplan.studies.inspection import inspect as inspect
from moeplan.verification.verify import verify as verify

__version__: str
