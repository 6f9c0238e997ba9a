//! Sessions with GoBGP. Wants root and `gobgpd`.

mod foreign;
mod support;

asked!(
    foreign::GoBgp:
    another_as_and_we_tell_each_other_all_attributes,
    within_the_as_all_attributes_pass,
    communities_of_others_pass_through,
    refreshes_tell_all_again_under_the_same_session,
    several_paths_to_a_prefix_go_both_ways,
    each_family_goes_over_the_other,
    keys_and_hops_hold_and_a_wrong_key_does_not,
    packets_must_have_come_one_hop,
    // Its calls come after ten seconds, whatever it is configured with: so the two call each other
    // at once by chance alone.
    both_call_at_once_and_one_session_remains,
    it_calls_where_we_wait,
    our_words_at_the_end_are_seen,
    routes_of_one_that_was_killed_stay_until_it_tells_anew,
    routes_of_one_that_is_long_gone_are_the_last_choice,
    our_routes_stay_marked_while_we_are_long_gone,
    a_large_table_of_ours_comes_and_goes,
    a_large_table_of_theirs_comes_and_goes,
);
