"""Parameters of LightGBM and CatBoost that concern a model of numeric features: the libraries have many more.

LightGBM's classes name only some of theirs, and take any other name without a word.
"""

from __future__ import annotations

LIGHTGBM: frozenset[str] = frozenset(
    {
        "boosting_type",
        "class_weight",
        "colsample_bytree",
        "drop_rate",
        "extra_trees",
        "feature_fraction_bynode",
        "learning_rate",
        "max_bin",
        "max_delta_step",
        "max_depth",
        "max_drop",
        "min_child_samples",
        "min_child_weight",
        "min_data_in_bin",
        "min_split_gain",
        "n_estimators",
        "num_leaves",
        "other_rate",
        "path_smooth",
        "reg_alpha",
        "reg_lambda",
        "scale_pos_weight",
        "skip_drop",
        "subsample",
        "subsample_for_bin",
        "subsample_freq",
        "top_rate",
        "uniform_drop",
    }
)

CATBOOST: frozenset[str] = frozenset(
    {
        "auto_class_weights",
        "bagging_temperature",
        "boost_from_average",
        "boosting_type",
        "bootstrap_type",
        "border_count",
        "class_weights",
        "colsample_bylevel",
        "depth",
        "eta",
        "feature_border_type",
        "fold_len_multiplier",
        "grow_policy",
        "has_time",
        "iterations",
        "l2_leaf_reg",
        "langevin",
        "leaf_estimation_backtracking",
        "leaf_estimation_iterations",
        "leaf_estimation_method",
        "learning_rate",
        "max_bin",
        "max_depth",
        "max_leaves",
        "min_child_samples",
        "min_data_in_leaf",
        "model_shrink_mode",
        "model_shrink_rate",
        "mvs_reg",
        "n_estimators",
        "nan_mode",
        "num_leaves",
        "random_strength",
        "reg_lambda",
        "rsm",
        "sampling_frequency",
        "scale_pos_weight",
        "score_function",
        "subsample",
    }
)
