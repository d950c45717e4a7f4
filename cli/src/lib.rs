//! memharvest: the mesh on one machine, and the operator's verbs.
