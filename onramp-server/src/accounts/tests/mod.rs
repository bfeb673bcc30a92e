//! What every store of accounts does, over all that there are; and what only databases do.

mod databases;
mod killed;
mod load;
mod places;
mod suite;

macro_rules! over_all_stores {
    ($($test:ident)*) => {
        over_all_stores! { memory: $($test)* }
        over_all_stores! { sqlite: $($test)* }
        over_all_stores! { postgres: $($test)* }
    };
    ($place:ident: $($test:ident)*) => {
        mod $place {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::places::$place(super::suite::$test).await;
            })*
        }
    };
}

over_all_stores! {
    accounts_are_made_found_and_changed
    accounts_are_listed_by_name
    names_and_aliases_are_kept_byte_by_byte
    trust_is_mutual_and_ends_for_both
    trust_that_cannot_be_changes_nothing
    a_token_is_claimed_once
    a_password_that_was_changed_meanwhile_stays
    a_hash_is_made_anew_and_nothing_else_changes
    an_account_whose_password_was_changed_meanwhile_stays
    what_is_open_ends_with_the_password_and_with_the_account
    nothing_is_opened_in_another_epoch
    a_token_ends_in_time
    a_claim_that_fails_leaves_the_token
    of_two_claims_at_once_one_succeeds
    of_many_at_once_one_gets_the_name
    invitations_are_accepted_once
    of_two_who_accept_an_invitation_one_succeeds
    what_belongs_to_an_account_goes_with_it
    there_are_so_many_open_tokens_and_invitations
    there_are_so_many_trusted_accounts
    what_has_expired_is_forgotten
}
