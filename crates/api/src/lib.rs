//! Stored types, their validation and their conversion into the model.
