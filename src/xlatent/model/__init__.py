"""The neural network: architecture, loss, training and export. The only room where torch lives."""
