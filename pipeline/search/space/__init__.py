"""What a study searches: the section `space` of params.yaml.

values.py     the values of one configuration
space.py      all configurations: random ones, evenly spread ones, neighbours, the grid; as numbers for models
scales.py     the values of one key, as positions in 0..1 and as a distribution of Optuna's
"""
