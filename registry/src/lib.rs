//! The store: agents, boundaries, roll-ups and violations.
