"""A search beyond one machine, on this machine: `make cluster-demo`.

    python deploy/demo.py [--trials 6] [--wait]

It starts an object store (moto's), PostgreSQL, MLflow's server and Ray with two simulated nodes, and searches the
digits with `tune --engine ray`. In the middle a node is lost without warning. Then it shows all trials as Optuna and
MLflow have them, and fails if one of them is lost or left RUNNING. With --wait everything stays up until Enter or
Ctrl-C. At the end, also after an error, it stops what it started and deletes its folder. It needs the extra `cluster`,
PostgreSQL's programs, and moto.
"""

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import requests

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLE = ("params.yaml", "dvc.yaml")
BUCKETS = ("artifacts", "checkpoints")
ENDED = {"FINISHED", "KILLED", "FAILED"}
STORE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False)
server.start()
sys.stdin.read()
"""


class Lost(Exception):
    """Something did not start, or a trial was lost."""


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unprivileged(command: list[str]) -> list[str]:
    """PostgreSQL refuses root."""
    if os.geteuid() == 0:
        return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
    return command


@contextmanager
def process(
    command: list[str], log: Path, environment: Mapping[str, str], folder: Path, end: signal.Signals = signal.SIGTERM
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that runs in the block; at the end its whole group ends."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        for number in (end, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(started.pid, number)
            with suppress(subprocess.TimeoutExpired):
                started.wait(20)
        if started.stdin:
            started.stdin.close()


def wait_for(
    what: str, there: Callable[[], bool], running: "subprocess.Popen[bytes]", log: Path, s: float = 180
) -> None:
    deadline = time.monotonic() + s
    while not there():
        if running.poll() is not None or time.monotonic() > deadline:
            raise Lost(f"{what} did not come; {log.name} ends with:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def answers(address: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(address, timeout=5).status_code < 500
    return False


def store(stack: ExitStack, root: Path, environment: dict[str, str]) -> str:
    address = f"http://127.0.0.1:{(port := free_port())}"
    log = root / "store.log"
    server = stack.enter_context(process([sys.executable, "-c", STORE, str(port)], log, environment, root))
    wait_for("the object store", lambda: answers(address), server, log)
    for bucket in BUCKETS:
        requests.put(f"{address}/{bucket}", timeout=30).raise_for_status()
    return address


def database(stack: ExitStack, root: Path, environment: dict[str, str]) -> str:
    """The address of PostgreSQL, without a database; the password is PGPASSWORD."""
    found = shutil.which("initdb") or next((str(p) for p in Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    if found is None:
        raise Lost("PostgreSQL is not installed: `apt-get install postgresql` installs it.")
    programs, folder, log, port = Path(found).resolve().parent, root / "database", root / "database.log", free_port()
    folder.mkdir()
    word = folder / "word"
    word.write_text(environment["PGPASSWORD"])
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
        shutil.chown(word, "nobody")
    create = [found, "-D", str(folder / "data"), "-U", "pipeline", "--auth=scram-sha-256", f"--pwfile={word}"]
    done = subprocess.run(
        unprivileged([*create, "-E", "UTF8", "--no-sync"]), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Lost(f"PostgreSQL can't be set up: {done.stderr.strip()}")
    word.unlink()
    options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    command = unprivileged([str(programs / "postgres"), "-D", str(folder / "data"), *options])
    server = stack.enter_context(process(command, log, environment, root, signal.SIGINT))
    ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    wait_for("PostgreSQL", lambda: subprocess.run(ready, check=False).returncode == 0, server, log)
    import psycopg

    address = f"127.0.0.1:{port}"
    with psycopg.connect(
        f"postgresql://pipeline@{address}/postgres", password=environment["PGPASSWORD"], autocommit=True
    ) as made:
        for name in ("studies", "runs"):
            made.execute(f"CREATE DATABASE {name}".encode())
    return f"postgresql+psycopg://pipeline@{address}"


def mlflow(stack: ExitStack, root: Path, environment: dict[str, str], runs: str) -> str:
    address = f"http://127.0.0.1:{(port := free_port())}"
    given = {
        "MLFLOW_BACKEND_STORE_URI": runs,
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://artifacts",
        "MLFLOW_WORKERS": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    log = root / "mlflow.log"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port)]
    server = stack.enter_context(process(command, log, environment | given, root))
    wait_for("MLflow's server", lambda: answers(f"{address}/health"), server, log, 400)
    return address


@contextmanager
def ray_nodes(root: Path) -> Iterator[Any]:
    """A head without cores, for the owner, and two nodes of one core."""
    from ray.cluster_utils import Cluster

    # Ray notes the cluster's address there, beside the folder of the cluster itself, and does not make the folder.
    os.environ["RAY_TMPDIR"] = str(root)
    (root / "ray").mkdir()
    memory = 100 * 2**20
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": memory, "temp_dir": str(root / "ray")}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            add_node(cluster)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Any) -> None:
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    watch_signals()  # Ray takes SIGTERM for itself


def epochs(project: Path) -> int:
    """How many the owner has received."""
    return sum(path.read_text().count("{") for path in project.rglob("epochs.jsonl"))


def search(project: Path, log: Path, environment: dict[str, str], trials: int, cluster: Any) -> None:
    command = [sys.executable, "-m", "pipeline.tune", "--trials", str(trials), "--engine", "ray"]
    command += ["--address", cluster.address, "--set", "train.epochs=9", "--set", "tune.confirm=0"]
    with process(command, log, environment, project, signal.SIGINT) as owner:
        wait_for("the first epochs", lambda: epochs(project) >= 3, owner, log, 600)
        node = next(iter(cluster.worker_nodes))
        print(f"after {epochs(project)} epochs: a node is lost without warning ...", flush=True)
        cluster.remove_node(node, allow_graceful=False)
        add_node(cluster)
        print("... and another one has come", flush=True)
        owner.wait()
        # Ray's own report on the lost node is pages long.
        said = [line for line in log.read_text().splitlines() if "raylet" not in line and line[:1].isalnum()]
        print(*said, sep="\n", flush=True)
        if owner.returncode:
            raise Lost(f"the search ended with exit code {owner.returncode}")


def shown(studies: str, password: str, tracking: str, trials: int) -> None:
    """Prints the trials as Optuna and MLflow have them. Raises Lost if they don't agree, or have not ended."""
    import optuna
    import sqlalchemy

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(
        sqlalchemy.make_url(studies).set(password=password).render_as_string(hide_password=False)
    )
    study = optuna.load_study(study_name="main", storage=storage)
    experiments = _asked(tracking, "experiments/search", max_results=100)["experiments"]
    ids = [experiment["experiment_id"] for experiment in experiments]
    found = _asked(tracking, "runs/search", experiment_ids=ids, max_results=1000)["runs"]
    # A trial's run is called 17: and its values.
    runs = {run["info"]["run_name"].partition(":")[0]: run["info"]["status"] for run in found}
    print(f"\n{'trial':>5}  {'epochs':>6}  {'accuracy':>8}  {'Optuna':9} MLflow")
    for trial in study.trials:
        values = trial.intermediate_values
        last = f"{values[max(values)]:.2%}" if values else ""
        status = runs.get(str(trial.number), "missing")
        print(f"{trial.number:>5}  {len(values):>6}  {last:>8}  {trial.state.name:9} {status}")
        if not trial.state.is_finished() or status not in ENDED or sorted(values) != list(range(1, len(values) + 1)):
            raise Lost(f"trial {trial.number} has not ended, or lacks an epoch")
    if len(study.trials) != trials or set(runs.values()) - ENDED:
        raise Lost(f"{len(study.trials)} trials instead of {trials}, runs in MLflow: {runs}")
    print(f"nothing was lost: {trials} trials, no run is left RUNNING", flush=True)


def _asked(address: str, what: str, **content: Any) -> Any:
    answer = requests.post(f"{address}/api/2.0/mlflow/{what}", json=content, timeout=60)
    answer.raise_for_status()
    return answer.json()


def demo(stack: ExitStack, trials: int, wait: bool) -> None:
    # Short, as Ray puts sockets there whose paths may have 107 characters.
    root = Path(tempfile.mkdtemp(prefix="cluster-demo-"))
    stack.callback(shutil.rmtree, root, ignore_errors=True)
    root.chmod(0o755)
    # For what torch and the workers leave in the folder for temporary files.
    scratch = root / "tmp"
    scratch.mkdir()
    scratch.chmod(0o1777)
    passwords = {"PGPASSWORD": secrets.token_hex(8), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(8)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    environment |= passwords | {
        "AWS_ACCESS_KEY_ID": "pipeline",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TMPDIR": str(scratch),
    }
    environment["AWS_ENDPOINT_URL"] = store(stack, root, environment)
    print(f"object store        {environment['AWS_ENDPOINT_URL']}  (buckets {', '.join(BUCKETS)})", flush=True)
    server = database(stack, root, environment)
    print(f"PostgreSQL          {server}/studies and /runs  (PGPASSWORD={passwords['PGPASSWORD']})", flush=True)
    environment["MLFLOW_TRACKING_URI"] = mlflow(stack, root, environment, f"{server}/runs")
    print(f"MLflow              {environment['MLFLOW_TRACKING_URI']}", flush=True)
    os.environ.update(environment)  # Ray's nodes have it from here
    cluster = stack.enter_context(ray_nodes(root))
    print(f"Ray                 {cluster.address}  (two nodes of one core)", flush=True)
    project = root / "project"
    project.mkdir()
    for name in EXAMPLE:
        shutil.copy(REPOSITORY / "examples" / "digits" / name, project)
    from pipeline import config

    given = {"tune.storage": f"{server}/studies", "tune.checkpoints": "s3://checkpoints/demo"}
    config.write_values(project / "params.yaml", given)
    command = [sys.executable, "-m", "pipeline.download"]
    subprocess.run(command, cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL)
    search(project, root / "search.log", environment, trials, cluster)
    shown(f"{server}/studies", passwords["PGPASSWORD"], environment["MLFLOW_TRACKING_URI"], trials)
    if wait:
        with suppress(EOFError):  # there may be no terminal to press Enter at
            input(f"\nAll of it is up, and the project is in {project}. Enter ends it. ")


def watch_signals() -> None:
    def interrupted(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--wait", action="store_true", help="keep everything up until Enter")
    options = parser.parse_args()
    if missing := [name for name in ("ray", "psycopg", "s3fs", "moto") if find_spec(name) is None]:
        print(f'error: {", ".join(missing)} missing: `pip install -e ".[dev,cluster]"` installs them.', file=sys.stderr)
        return 1
    watch_signals()
    try:
        with ExitStack() as stack:
            try:
                demo(stack, options.trials, options.wait)
            finally:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)  # what follows must not be cut short
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except (Lost, requests.RequestException, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
