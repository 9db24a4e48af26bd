"""The bundled dataset keeps the promises of data/complete_journey/README.md."""

from pathlib import Path

import pandas as pd
import pytest

FOLDER = Path(__file__).parents[1] / "data" / "complete_journey"


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "events.csv.gz", parse_dates=["time"])


@pytest.fixture(scope="module")
def products() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "products.csv.gz")


@pytest.fixture(scope="module")
def households() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "households.csv.gz")


def test_files_are_small_and_carry_their_terms() -> None:
    files = list(FOLDER.glob("*.csv.gz"))
    assert len(files) == 3
    assert sum(file.stat().st_size for file in files) <= 3_000_000
    assert "James Cunningham" in (FOLDER / "LICENSE").read_text()


def test_gzip_headers_hold_no_time_stamp() -> None:
    assert all(file.read_bytes()[4:8] == bytes(4) for file in FOLDER.glob("*.csv.gz"))


def test_counts_are_those_of_the_readme(events, products, households) -> None:
    text = (FOLDER / "README.md").read_text()
    for n, what in [
        (len(households), "households"),
        (events["basket"].nunique(), "baskets"),
        (len(events), "lines"),
        (len(products), "products"),
        (products["name"].nunique(), "names"),
        (households["age"].isna().sum(), "households that the source has no profile of"),
    ]:
        assert f"{n:,} {what}" in " ".join(text.split())


def test_events_are_complete_and_typed(events) -> None:
    assert list(events) == ["household", "basket", "time", "product", "quantity"]
    assert not events.isna().to_numpy().any()
    assert pd.api.types.is_datetime64_dtype(events["time"])
    assert all(pd.api.types.is_integer_dtype(events[c]) for c in events.columns.drop("time"))
    assert (events["quantity"] >= 1).all()


def test_events_are_sorted_by_time_and_keep_baskets_together(events) -> None:
    assert events["time"].is_monotonic_increasing
    starts = events["basket"] != events["basket"].shift()
    assert starts.sum() == events["basket"].nunique()


def test_a_basket_has_one_household_and_one_time_and_no_product_twice(events) -> None:
    baskets = events.groupby("basket")
    assert (baskets[["household", "time"]].nunique() == 1).to_numpy().all()
    assert not events.duplicated(["basket", "product"]).any()


def test_filters_reached_their_fixed_point(events) -> None:
    assert events["product"].value_counts().min() >= 20
    assert events["basket"].value_counts().between(2, 30).all()


def test_order_in_a_basket_does_not_give_the_last_product_away(events) -> None:
    """In the source it is always the one with the highest id."""
    baskets = events.groupby("basket")["product"]
    is_highest = baskets.last() == baskets.max()
    assert is_highest.mean() == pytest.approx((1 / baskets.size()).mean(), abs=0.01)


def test_every_product_is_described_once(events, products) -> None:
    assert list(products) == ["product", "name", "category", "department", "brand", "seller"]
    assert not products.isna().to_numpy().any()
    assert products["product"].is_unique
    assert set(products["product"]) == set(events["product"])
    assert set(products["brand"]) == {"National", "Private"}


def test_every_household_is_listed_once(events, households) -> None:
    profile = ["age", "income", "household_size", "home_ownership", "marital_status", "kids_count"]
    assert list(households) == ["household", *profile]
    assert households["household"].is_unique
    assert set(households["household"]) == set(events["household"])
    assert households[profile].notna().any().all()
