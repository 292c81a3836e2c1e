"""``augesc``, but for a row that ends the process that makes it: POISON is ``QUERY SAMPLE HOW``."""

import os
import signal
import sys

from augesc_builder.pipeline.generate.generator import Generator

make = Generator.stream


def stream(self, tasks, on_step):
    def read():
        *which, how = os.environ["POISON"].split()
        for task in tasks:
            if [task.query["query_id"], str(task.sample)] == which:
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise ZeroDivisionError("a row\x1b[31m")
            yield task

    return make(self, read(), on_step)


Generator.stream = stream  # in processes that are spawned, too: they import this file

if __name__ == "__main__":
    from augesc_builder.cli.app import main

    sys.exit(main())
