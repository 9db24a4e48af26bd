"""Data sets: the bundled log, and readers of public logs in their original formats."""

from graphmeta.datasets.ratings import melu_movielens, metahin
from graphmeta.datasets.reviews import amazon_reviews, musical_instruments, split_items_by_text, synthetic_reviews
from graphmeta.datasets.session_logs import (
    amazon_histories,
    complete_journey,
    diginetica,
    eshop_clothing,
    movielens_1m,
    movielens_1m_histories,
    tafeng,
    yoochoose_1_64,
    yoochoose_times,
)

__all__ = [
    "amazon_histories",
    "amazon_reviews",
    "complete_journey",
    "diginetica",
    "eshop_clothing",
    "split_items_by_text",
    "melu_movielens",
    "metahin",
    "movielens_1m",
    "movielens_1m_histories",
    "musical_instruments",
    "synthetic_reviews",
    "tafeng",
    "yoochoose_1_64",
    "yoochoose_times",
]
