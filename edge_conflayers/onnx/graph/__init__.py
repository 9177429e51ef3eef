"""The graph of a model: layers, their mask, and the operators of two targets."""
