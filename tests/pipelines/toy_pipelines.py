"""Small pipelines in the shape of ours: nested, conditional, with an exit task."""

from typing import List, NamedTuple  # noqa: UP035

from kfp import dsl


@dsl.component(base_image="python", install_kfp_package=False)
def count(n: int, page: dsl.Output[dsl.Markdown]) -> NamedTuple(
    "Outputs", [("n_counted", int), ("trainable_version", str)]
):
    from visionloop_toys import count as run_stage

    return run_stage(n=n, page=page)


@dsl.component(base_image="python", install_kfp_package=False)
def fail(how: str) -> NamedTuple("Outputs", [("n_counted", int)]):
    from visionloop_toys import fail as run_stage

    return run_stage(how=how)


@dsl.component(base_image="python", install_kfp_package=False)
def absent() -> NamedTuple("Outputs", [("n_counted", int)]):
    from visionloop_nowhere import absent as run_stage

    return run_stage()


@dsl.pipeline(name="half")
def half(n: int) -> str:
    return count(n=n).outputs["trainable_version"]


@dsl.pipeline(name="whole")
def whole(n: int = 3, how: str = "input"):
    last = count(n=1)
    with dsl.ExitHandler(last, name="turn"):
        first = half(n=n)
        with dsl.If(first.output != "", name="more"):
            # Locally nobody waits a minute for the second try of what cannot go well.
            fail(how=how).set_retry(2, backoff_duration="60s")


@dsl.pipeline(name="import-error")
def import_error():
    absent()


@dsl.pipeline(name="side-by-side")
def side_by_side(sizes: List[int] = [1, 2, 3, 4], how: str = ""):  # noqa: B006, UP006
    with dsl.ParallelFor(sizes) as size:
        count(n=size)
        with dsl.If(how != "", name="more"):
            fail(how=how)
