"""Log a training to TensorBoard, MLflow or W&B: ``python examples/callbacks.py [tensorboard|mlflow|wandb]``.

Each is a class with ``on_epoch(training, report)``; none of the packages is needed by graphmeta. Without an argument,
the script prints the numbers that they would get.
"""

import sys

import numpy as np

import graphmeta as gm
from graphmeta.training.callbacks import scalars
from graphmeta.training.run import Report

FOLDER = "out/logs"


class Printed:
    """Prints the numbers of each epoch."""

    def on_epoch(self, training: str, report: Report) -> None:
        print(training, report.epoch + 1, {name: round(value, 4) for name, value in scalars(report).items()})


class TensorBoard:
    """``pip install tensorboard``; then ``tensorboard --logdir out/logs``."""

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(FOLDER)

    def on_epoch(self, training: str, report: Report) -> None:
        for name, value in scalars(report).items():
            self.writer.add_scalar(f"{training}/{name}", value, report.epoch + 1)
        self.writer.flush()


class MLflow:
    """``pip install mlflow``; then ``mlflow ui``."""

    def on_epoch(self, training: str, report: Report) -> None:
        import mlflow

        named = {f"{training.replace(',', '')}/{name}": value for name, value in scalars(report).items()}
        mlflow.log_metrics(named, step=report.epoch + 1)


class WeightsAndBiases:
    """``pip install wandb``; logs offline unless you are logged in."""

    def __init__(self) -> None:
        import wandb

        self.run = wandb.init(project="graphmeta", dir=FOLDER, mode="offline")

    def on_epoch(self, training: str, report: Report) -> None:
        self.run.log({f"{training}/{name}": value for name, value in scalars(report).items()})


if __name__ == "__main__":
    kinds = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}
    callback = kinds.get(sys.argv[-1], Printed)()
    log = gm.datasets.complete_journey()
    some = log.of_sessions(np.arange(log.num_sessions) < 2_500)
    gm.fit(gm.split_by_time(some), "sr_gnn", epochs=2, width=16, progress=callback)
