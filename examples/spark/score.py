"""Scores JSONL pairs with Apache Spark: one `crag score` for each partition, records piped through it.

    spark-submit score.py PAIRS OUT [--model MODEL] [--crag PATH] [--partitions N]

PAIRS is a file, a folder or a pattern on any file system that Spark reads, plain or gzipped; OUT becomes a folder of
`part-*` files whose concatenation in order is what a single run over PAIRS gives, but for lines that are no JSON object:
their error records hold the number of the line, which each task counts in its own partition (and a single run over
several files names the file too). The binary and the model (fetched
before, tasks run offline) must be on every worker; ship the binary with `--files` if it is not. Spark repeats failed
tasks; error records are no failure.

Each task loads the model once, so partitions should be large: thousands of pairs each.
"""

import argparse
import shlex

from pyspark.sql import SparkSession


def main():
    parser = argparse.ArgumentParser(description="Scores JSONL pairs with Spark.")
    parser.add_argument("pairs")
    parser.add_argument("out")
    parser.add_argument("--model", default="chrisvoncsefalvay/CRAG-dual-encoder-ade")
    parser.add_argument("--crag", default="crag", help="the binary on the workers")
    parser.add_argument("--partitions", type=int, help="fewest partitions [default: Spark's]")
    parser.add_argument("--threads", type=int, default=1, help="of each process; Spark's task.cpus")
    args = parser.parse_args()

    score = shlex.join([args.crag, "score", "--model", args.model, "--offline", "--quiet"])
    # Exit code 3 means finished with some error records in their places: a result, not a failed task.
    command = shlex.join(["sh", "-c", f"{score} --threads {args.threads} || [ $? = 3 ]"])

    spark = SparkSession.builder.appName("crag").getOrCreate()
    lines = spark.sparkContext.textFile(args.pairs, minPartitions=args.partitions)
    # Partitions keep their order and lines keep theirs within them; `pipe` keeps both.
    lines.pipe(command, checkCode=True).saveAsTextFile(args.out)
    spark.stop()


if __name__ == "__main__":
    main()
