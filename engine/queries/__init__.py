"""Operations of a job as queries of Polars, which cuDF computes on a GPU (cudf-polars).

A query says what a partition's operation makes, once, for two engines that agree on what it means: Polars' own on the
host, with which every query is tested against the operation's code in pandas, and cuDF's on a GPU. What has no query
here, or what cuDF does not take, the host does, for that operation only, and the run says so.

`expressions` and `functions` are SQL expressions, `steps` the operations on rows, `groups` what a partition
contributes to an aggregate, and `running` is where all of them are computed.
"""
