"""The store, and the pools that attackers are let loose in."""

import sys

import made_up
import pytest
from rig import HELPERS, PROBLEMS, Rig

from env.isolation.link import Limits
from env.isolation.pool import Pool

LIMITS = Limits(memory=160 << 20, cpu=1, wall=60.0, traffic=2 << 20, text=64 << 10)


@pytest.fixture(scope="module")
def rig(tmp_path_factory) -> Rig:
    return Rig(made_up.store(tmp_path_factory.mktemp("store") / "toy", problems=PROBLEMS, branches=12))


def opened(limits: Limits, level: str = "A"):
    if sys.platform != "linux":
        pytest.skip("untrusted code is run on Linux only")
    pool = Pool(limits, HELPERS, level=level, i_trust_this_code=True)
    if pool.level == "C" or pool.level > level:
        pool.close()
        pytest.skip(f"this kernel does not offer level {level}, so there is none to attack")
    return pool


@pytest.fixture(scope="module")
def pool():
    with opened(LIMITS) as pool:
        yield pool


@pytest.fixture(scope="module", params=["A", "B"])
def leveled_pool(request):
    with opened(LIMITS, request.param) as pool:
        yield pool


@pytest.fixture(scope="module")
def impatient_pool():
    with opened(Limits(wall=0.5)) as pool:
        yield pool
