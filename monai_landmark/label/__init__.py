"""MONAI Label: landmarks predicted, corrected and learned from, over HTTP.

``checks``, ``rounds``, ``labels``, ``service``, ``strategies``, ``guard`` and ``privacy`` need no MONAI Label;
``datastore``, ``tasks`` and ``app`` put them into its terms, and ``server`` starts it.
"""
