//! Fixtures and throwaway namespaces for tests.
