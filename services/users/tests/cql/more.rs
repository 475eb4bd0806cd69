//! What only servers that many use can go wrong in.
