"""Trained networks in use, away from the data set: predictions of images from outside, and files for other programs.

It is a room of its own because it joins what no other room may: models of MLflow, of ONNX and of files with images of
any kind.

opened.py       what --model names -> a network that is ready to predict
inputs.py       files, folders, patterns, addresses -> images to predict
predicting.py   images -> classes with their probabilities, batch after batch
showing.py      predictions as a table, JSON or CSV
converting.py   a network in another format
checking.py     whether it predicts the same there, how large it is and how fast
card.py         its model card
explaining.py   which part of an image a prediction rests on, as a picture
"""
