"""What result files show: figures as PNG files, and one HTML page that opens from disk.

results.py            result files, read and checked
search_history.py     a search as plain data: the file that the owner of a study writes for the report
before.py             results of another commit, from git or DVC's cache
page.py               the page
language.py           the page in another language: a catalogue of its sentences
answers.py            what it says of a training and its evaluation
search_answers.py     what it says of a search
search_pictures.py    the data of its pictures of a search
surface.py            what a search's model believes of two keys, as areas
comparison.py         two results on the same test images
certainty.py          reliability, accuracy against coverage
slices.py             accuracy on parts of the test set that look alike
class_order.py        an order of the classes in which confused ones stand together
statistics.py         intervals, McNemar's test, the share that a key explains
formats.py            numbers as the page writes them
template/             the page's HTML by question, its style, the script that draws its pictures, Korean
plots.py              figures of a training as PNG: learning curves, confusion matrix
drawings.py           the page's pictures of a result as PNG, from the same data
search_drawings.py    the page's pictures of a search as PNG, from the same data
study_plots.py        of these, importances and parallel coordinates
degradation_plot.py   the figure of a grid over depths: errors against depth
"""
