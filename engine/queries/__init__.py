"""Operations of a job as queries of Polars, which cuDF computes on a GPU (cudf-polars).

A query says what a partition's operation makes, once, for two engines that agree on what it means: Polars' own on the
host, with which every query is tested against the operation's code in pandas, and cuDF's on a GPU. What has no query
here, or what cuDF does not take, the host does, for that operation only, and the run says so.

From below: `values` and the `engine`; `functions` and `expressions` of SQL; `query`, rows that are still to be
computed; `windows`, `steps`, `groups` and `features`, the operations; `running`, where programs are computed.
"""
