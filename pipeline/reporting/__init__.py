"""What result files show: figures as PNG files, and one HTML page that opens from disk.

results.py            result files, read and checked
page.py               the page
report.html.j2        its template
formats.py            numbers as the page writes them
plots.py              figures of a training: learning curves, confusion matrix
study_plots.py        figures of a search: history, importances, parallel coordinates
degradation_plot.py   the figure of a grid over depths: errors against depth
"""
