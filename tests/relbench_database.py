"""A small database in the format of relbench 3, with the tables, keys and task of rel-hm, written by hand."""

from pathlib import Path

import numpy as np
import pandas as pd

DAYS = 7.0
_DATABASE = """\
name: rel-shop
manifest_version: 1
description: |
  A shop. Its tables are those of rel-hm.
val_timestamp: '2020-09-07'
test_timestamp: '2020-09-14'
tables:
  article: {pkey: article_id, time_col: null, fkeys: {}}
  customer: {pkey: customer_id, time_col: null, fkeys: {}}
  transactions:
    pkey: null
    time_col: t_dat
    fkeys: {customer_id: customer, article_id: article}
"""
_TASK = """\
name: user-item-purchase
kind: forecast
task_type: recommendation
time_col: timestamp
src_entity_table: customer
src_entity_col: customer_id
dst_entity_table: article
dst_entity_col: article_id
eval_k: 12
timedelta: 7 days
sql: |
  SELECT t.timestamp, transactions.customer_id, LIST(DISTINCT transactions.article_id) AS article_id
  FROM timestamps t
  LEFT JOIN transactions
  ON transactions.t_dat > t.timestamp AND transactions.t_dat <= t.timestamp + INTERVAL '{timedelta}'
  WHERE transactions.customer_id IS NOT NULL
  GROUP BY t.timestamp, transactions.customer_id
manifest_version: 1
"""


def write_shop(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Customers, articles and transactions of ten weeks, one of them on each day, and three in the last week."""
    customer = pd.DataFrame({"customer_id": np.arange(5), "age": [20.0, None, 40.0, 50.0, 60.0]})
    number = np.arange(1200)
    article = pd.DataFrame({"article_id": number, "colour": np.array(["red", None, "blue"], dtype=object)[number % 3]})
    article["price"], article["name"] = number / 10, [f"article {n}" for n in number]
    random = np.random.default_rng(0)
    day = pd.date_range("2020-07-06", "2020-09-14", freq="D").repeat(3)
    rows = pd.DataFrame({"t_dat": day, "customer_id": np.tile([0, 1, 2], len(day) // 3)})
    rows["article_id"] = random.integers(0, 1200, len(rows))
    last = pd.DataFrame({"t_dat": pd.to_datetime(["2020-09-15", "2020-09-15", "2020-09-21"]), "customer_id": [0, 0, 4]})
    rows = pd.concat([rows, last.assign(article_id=[1, 1150, 3])], ignore_index=True)
    (folder / "db").mkdir(parents=True)
    for name, frame in (("customer", customer), ("article", article), ("transactions", rows)):
        frame.to_parquet(folder / "db" / f"{name}.parquet")
    task = folder / "tasks" / "user-item-purchase"
    task.mkdir(parents=True)
    (folder / "manifest.yaml").write_text(_DATABASE)
    (task / "manifest.yaml").write_text(_TASK)
    for name, begin in (("val", "2020-09-07"), ("test", "2020-09-14")):
        at = pd.Timestamp(begin)
        inside = rows[(rows["t_dat"] > at) & (rows["t_dat"] <= at + pd.Timedelta(days=7))]
        lists = inside.groupby("customer_id")["article_id"].apply(lambda of: sorted(set(of)))
        lists.reset_index().assign(timestamp=at).to_parquet(task / f"{name}.parquet")
    return customer, article, rows
