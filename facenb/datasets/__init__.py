"""Official layouts of data sets, one short reader each, and the training sets made from them."""
