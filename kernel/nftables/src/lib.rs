//! Rulesets, sets, maps and transactions of nf_tables.
