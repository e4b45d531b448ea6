"""``vla doctor``: is this robot data fit to learn from, and for this policy?"""
