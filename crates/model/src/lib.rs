//! Validated domain types: policies, tiers, endpoints, pools, selectors.
