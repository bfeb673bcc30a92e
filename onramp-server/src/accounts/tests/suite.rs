//! What every store of accounts does.

use std::time::{Duration, SystemTime};

use pmesh::onramp::accounts::{
    Account, AccountId, Claimed, Digest, MAX_OPEN_TOKENS, MAX_TRUSTED, NewInvite, NewToken, StoreError, Trust, Trusted,
};
use tokio::task::JoinSet;

use super::places::Store;

const NOBODY: AccountId = AccountId(1_000_000);
const HOUR: Duration = Duration::from_secs(3600);

/// A point in time that has no nanoseconds of its own, and those around it have.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn digest(number: u64) -> Digest {
    let mut digest = [0xff; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    Digest(digest)
}

async fn named<const N: usize>(store: &Store, names: [&str; N]) -> [AccountId; N] {
    let mut ids = [NOBODY; N];
    for (id, name) in ids.iter_mut().zip(names) {
        *id = store.create(name, "hash").await.unwrap();
    }
    ids
}

fn token(number: u64, issuer: AccountId, alias: &str) -> NewToken {
    NewToken { issuer, alias: alias.into(), digest: digest(number), expires: noon() + HOUR }
}

fn invite(number: u64, inviter: AccountId) -> NewInvite {
    NewInvite { inviter, email: "a@example.org".into(), digest: digest(number), expires: noon() + HOUR }
}

async fn trusted(store: &Store, id: AccountId) -> Vec<(String, AccountId)> {
    store.trusted(id).await.unwrap().into_iter().map(|Trusted { alias, account }| (alias, account)).collect()
}

/// What went wrong, in the words for programs.
fn code<T: std::fmt::Debug>(result: Result<T, StoreError>) -> &'static str {
    result.unwrap_err().code()
}

/// How often it went well, and the codes of the others.
async fn outcomes<T: Send + 'static>(mut attempts: JoinSet<Result<T, StoreError>>) -> (usize, Vec<&'static str>) {
    let (mut well, mut codes) = (0, Vec::new());
    while let Some(attempt) = attempts.join_next().await {
        match attempt.unwrap() {
            Ok(_) => well += 1,
            Err(error) => codes.push(error.code()),
        }
    }
    (well, codes)
}

pub(super) async fn accounts_are_made_found_and_changed(store: Store) {
    let [alice, bob] = named(&store, ["alice", "bob"]).await;
    assert_ne!(alice, bob);
    assert_eq!(code(store.create("alice", "other").await), "nameTaken");
    let mut account =
        Account { id: alice, name: "alice".into(), password_hash: "hash".into(), is_active: true, epoch: 0 };
    assert_eq!(store.by_name("alice").await.unwrap().as_ref(), Some(&account));
    store.set_password_hash(alice, None, "another").await.unwrap();
    store.set_active(alice, false).await.unwrap();
    (account.password_hash, account.is_active, account.epoch) = ("another".into(), false, 2);
    assert_eq!(store.by_id(alice).await.unwrap().as_ref(), Some(&account));
    store.set_active(alice, true).await.unwrap();
    account.is_active = true;
    assert_eq!(store.by_name("alice").await.unwrap().as_ref(), Some(&account), "to be active again is no new epoch");
    assert_eq!(store.list(None, 1).await.unwrap(), [account]);
    assert_eq!(store.by_id(bob).await.unwrap().unwrap().password_hash, "hash");

    assert_eq!((store.by_name("Alice").await.unwrap(), store.by_id(NOBODY).await.unwrap()), (None, None));
    assert_eq!(code(store.set_password_hash(NOBODY, None, "x").await), "unknownAccount");
    assert_eq!(code(store.set_active(NOBODY, true).await), "unknownAccount");
    assert_eq!(code(store.delete(NOBODY, None).await), "unknownAccount");
    assert_eq!(trusted(&store, NOBODY).await, []);
}

pub(super) async fn accounts_are_listed_by_name(store: Store) {
    named(&store, ["b", "a", "é", "B", "a b", "aa"]).await;
    let names = async |after, limit| -> Vec<String> {
        store.list(after, limit).await.unwrap().into_iter().map(|account| account.name).collect()
    };
    assert_eq!(names(None, 100).await, ["B", "a", "a b", "aa", "b", "é"]);
    assert_eq!(names(None, 2).await, ["B", "a"]);
    assert_eq!(names(Some("a"), 2).await, ["a b", "aa"]);
    assert_eq!(names(Some("b!"), usize::MAX).await, ["é"]);
    assert_eq!(names(Some("é"), 2).await, [""; 0]);
    assert_eq!(names(None, 0).await, [""; 0]);
}

pub(super) async fn names_and_aliases_are_kept_byte_by_byte(store: Store) {
    let odd = ["'; DROP TABLE accounts; --", "Ünïcødé 😀", "%_\\\"$1", "e\u{301}", "\u{e9}", "A", "a", "\u{131}", "i"];
    let me = store.create("me", "$argon2id$v=19$m=64,t=1,p=1$c2FsdA$aGFzaA").await.unwrap();
    for name in odd {
        let id = store.create(name, "hash").await.unwrap();
        store.trust(me, name, id, name).await.unwrap();
        assert_eq!(store.by_name(name).await.unwrap().unwrap().id, id, "{name}");
    }
    let mut sorted = odd;
    sorted.sort_unstable();
    let aliases: Vec<String> = trusted(&store, me).await.into_iter().map(|(alias, _)| alias).collect();
    assert_eq!(aliases, sorted);
    for name in odd {
        let Trust { alias_of_a, alias_of_b, .. } = store.revoke(me, name).await.unwrap();
        assert_eq!([&*alias_of_a, &alias_of_b], [name, name]);
    }
}

pub(super) async fn trust_is_mutual_and_ends_for_both(store: Store) {
    let [a, b, c] = named(&store, ["a", "b", "c"]).await;
    store.trust(a, "Bob", b, "Ali").await.unwrap();
    // The other way around each pair could have the same aliases.
    store.trust(c, "Bob", b, "Ceh").await.unwrap();
    assert_eq!(trusted(&store, a).await, [("Bob".into(), b)]);
    assert_eq!(trusted(&store, b).await, [("Ali".into(), a), ("Ceh".into(), c)]);
    let (alias_of_a, alias_of_b) = ("Bob".into(), "Ali".into());
    assert_eq!(store.revoke(b, "Ali").await.unwrap(), Trust { a: b, alias_of_b, b: a, alias_of_a });
    assert_eq!(trusted(&store, a).await, []);
    assert_eq!(trusted(&store, b).await, [("Ceh".into(), c)]);
    assert_eq!(code(store.revoke(b, "Ali").await), "unknownAlias");
    assert_eq!(code(store.revoke(a, "Ceh").await), "unknownAlias");
    assert_eq!(code(store.revoke(NOBODY, "Ali").await), "unknownAlias");
    store.trust(b, "Ali", a, "Bob").await.unwrap();
}

pub(super) async fn trust_that_cannot_be_changes_nothing(store: Store) {
    let [a, b, c] = named(&store, ["a", "b", "c"]).await;
    store.trust(a, "B", b, "A").await.unwrap();
    assert_eq!(code(store.trust(a, "b", b, "a").await), "alreadyTrusted");
    assert_eq!(code(store.trust(b, "a", a, "b").await), "alreadyTrusted");
    assert_eq!(code(store.trust(a, "B", c, "x").await), "aliasTaken");
    assert_eq!(code(store.trust(c, "x", a, "B").await), "aliasTaken");
    assert_eq!(code(store.trust(a, "x", a, "y").await), "ownToken");
    assert_eq!(code(store.trust(a, "x", NOBODY, "y").await), "unknownAccount");
    assert_eq!(code(store.trust(NOBODY, "x", a, "y").await), "unknownAccount");
    assert_eq!((trusted(&store, a).await, trusted(&store, c).await), (vec![("B".into(), b)], vec![]));
}

pub(super) async fn a_token_is_claimed_once(store: Store) {
    let [a, b, c] = named(&store, ["a", "b", "c"]).await;
    store.add_token(token(1, a, "B"), None, noon()).await.unwrap();
    assert_eq!(code(store.claim(digest(2), b, None, "A", noon()).await), "unknownToken");
    assert_eq!(code(store.claim(digest(1), a, None, "A", noon()).await), "ownToken");
    let claimed = store.claim(digest(1), b, None, "A", noon()).await.unwrap();
    assert_eq!(claimed, Claimed { issuer: a, issuer_alias: "B".into() });
    assert_eq!((trusted(&store, a).await, trusted(&store, b).await), (vec![("B".into(), b)], vec![("A".into(), a)]));
    for again in [b, c] {
        assert_eq!(code(store.claim(digest(1), again, None, "A", noon()).await), "unknownToken");
    }
    assert_eq!(code(store.add_token(token(2, a, "B"), None, noon()).await), "aliasTaken");
    assert_eq!(code(store.add_token(token(2, NOBODY, "B"), None, noon()).await), "unknownAccount");
}

pub(super) async fn a_password_that_was_changed_meanwhile_stays(store: Store) {
    let [a] = named(&store, ["a"]).await;
    store.set_password_hash(a, Some(0), "second").await.unwrap();
    assert_eq!(code(store.set_password_hash(a, Some(0), "third").await), "wrongPassword");
    store.set_active(a, false).await.unwrap();
    assert_eq!(code(store.set_password_hash(a, Some(1), "third").await), "wrongPassword");
    assert_eq!(code(store.set_password_hash(NOBODY, Some(2), "third").await), "unknownAccount");
    assert_eq!(store.by_id(a).await.unwrap().unwrap().password_hash, "second");
}

pub(super) async fn a_hash_is_made_anew_and_nothing_else_changes(store: Store) {
    let [a, b] = named(&store, ["a", "b"]).await;
    store.add_token(token(1, a, "B"), None, noon()).await.unwrap();
    let mut account = store.by_id(a).await.unwrap().unwrap();
    for (old, new, now) in [("hash", "anew", "anew"), ("hash", "later", "anew")] {
        store.rehash(a, old, new).await.unwrap();
        account.password_hash = now.into();
        assert_eq!(store.by_id(a).await.unwrap().as_ref(), Some(&account));
    }
    store.rehash(NOBODY, "hash", "anew").await.unwrap();
    assert_eq!(store.by_id(b).await.unwrap().unwrap().password_hash, "hash");
    store.claim(digest(1), b, None, "A", noon()).await.unwrap();
}

pub(super) async fn an_account_whose_password_was_changed_meanwhile_stays(store: Store) {
    let [a, b] = named(&store, ["a", "b"]).await;
    store.trust(a, "B", b, "A").await.unwrap();
    store.set_password_hash(a, None, "second").await.unwrap();
    assert_eq!(code(store.delete(a, Some(0)).await), "wrongPassword");
    store.set_active(a, false).await.unwrap();
    store.set_active(a, true).await.unwrap();
    assert_eq!(code(store.delete(a, Some(1)).await), "wrongPassword");
    assert_eq!(code(store.delete(NOBODY, Some(2)).await), "unknownAccount");
    assert_eq!(trusted(&store, a).await, [("B".into(), b)]);
    assert_eq!(store.delete(a, Some(2)).await.unwrap().len(), 1);
    assert_eq!(store.by_id(a).await.unwrap(), None);
}

pub(super) async fn what_is_open_ends_with_the_password_and_with_the_account(store: Store) {
    let [a, b] = named(&store, ["a", "b"]).await;
    for ends in [false, true] {
        store.add_token(token(1, a, "B"), None, noon()).await.unwrap();
        store.add_token(token(2, b, "A"), None, noon()).await.unwrap();
        store.add_invite(invite(3, a), None, noon()).await.unwrap();
        store.set_active(a, true).await.unwrap();
        store.check_invite(digest(3), noon()).await.unwrap();
        if ends {
            store.set_active(a, false).await.unwrap();
        } else {
            store.set_password_hash(a, None, "another").await.unwrap();
        }
        assert_eq!(code(store.claim(digest(1), b, None, "A", noon()).await), "unknownToken");
        assert_eq!(code(store.check_invite(digest(3), noon()).await), "unknownToken");
        // What others have asked for stays.
        store.claim(digest(2), a, None, "B", noon()).await.unwrap();
        store.revoke(a, "B").await.unwrap();
    }
}

pub(super) async fn nothing_is_opened_in_another_epoch(store: Store) {
    let [a, b] = named(&store, ["a", "b"]).await;
    for epoch in [0, 1] {
        if epoch == 0 {
            store.set_password_hash(a, None, "another").await.unwrap();
        } else {
            store.set_active(a, false).await.unwrap();
        }
        store.add_token(token(2, b, "A"), None, noon()).await.unwrap();
        for other in [epoch, epoch + 2] {
            assert_eq!(code(store.add_token(token(1, a, "B"), Some(other), noon()).await), "wrongPassword");
            assert_eq!(code(store.add_invite(invite(3, a), Some(other), noon()).await), "wrongPassword");
            assert_eq!(code(store.claim(digest(2), a, Some(other), "B", noon()).await), "wrongPassword");
        }
        assert_eq!(code(store.claim(digest(1), b, None, "A", noon()).await), "unknownToken");
        assert_eq!(code(store.check_invite(digest(3), noon()).await), "unknownToken");
        assert_eq!(trusted(&store, a).await, []);
        // That of the issuer is not asked for.
        store.claim(digest(2), a, Some(epoch + 1), "B", noon()).await.unwrap();
        store.revoke(a, "B").await.unwrap();
        store.add_token(token(1, a, "B"), Some(epoch + 1), noon()).await.unwrap();
        store.add_invite(invite(3, a), Some(epoch + 1), noon()).await.unwrap();
    }
    assert_eq!(code(store.add_token(token(4, NOBODY, "B"), Some(0), noon()).await), "unknownAccount");
}

pub(super) async fn a_token_ends_in_time(store: Store) {
    let [a, b, c] = named(&store, ["a", "b", "c"]).await;
    let just_before = noon() + HOUR - Duration::from_nanos(1);
    store.add_token(token(1, a, "B"), None, noon()).await.unwrap();
    store.add_token(token(2, a, "C"), None, noon()).await.unwrap();
    assert_eq!(code(store.claim(digest(1), b, None, "A", noon() + HOUR).await), "expired");
    assert_eq!(code(store.claim(digest(1), b, None, "A", noon() + 2 * HOUR).await), "expired");
    store.claim(digest(2), c, None, "A", just_before).await.unwrap();
    let never = NewToken { expires: SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40), ..token(3, a, "D") };
    store.add_token(never, None, noon()).await.unwrap();
    store.claim(digest(3), b, None, "A", noon()).await.unwrap();
}

pub(super) async fn a_claim_that_fails_leaves_the_token(store: Store) {
    let [a, b, c, d] = named(&store, ["a", "b", "c", "d"]).await;
    store.trust(b, "A", c, "B").await.unwrap();
    store.add_token(token(1, a, "B"), None, noon()).await.unwrap();
    store.add_token(token(2, a, "B"), None, noon()).await.unwrap();
    assert_eq!(code(store.claim(digest(1), b, None, "A", noon()).await), "aliasTaken", "that of the claimer");
    assert_eq!(trusted(&store, a).await, []);
    store.claim(digest(1), b, None, "Alice", noon()).await.unwrap();
    assert_eq!(code(store.claim(digest(2), d, None, "A", noon()).await), "aliasTaken", "that of the issuer");
    assert_eq!(code(store.claim(digest(2), b, None, "Ali", noon()).await), "alreadyTrusted");
    store.revoke(a, "B").await.unwrap();
    assert_eq!(code(store.claim(digest(2), NOBODY, None, "A", noon()).await), "unknownAccount");
    store.claim(digest(2), d, None, "A", noon()).await.unwrap();
    assert_eq!(trusted(&store, a).await, [("B".into(), d)]);
}

pub(super) async fn of_two_claims_at_once_one_succeeds(store: Store) {
    let [a, b, c] = named(&store, ["a", "b", "c"]).await;
    for round in 0..100 {
        store.add_token(token(round, a, "X"), None, noon()).await.unwrap();
        let mut claims = JoinSet::new();
        for claimer in [b, c] {
            let store = store.clone();
            claims.spawn(async move { store.claim(digest(round), claimer, None, "A", noon()).await });
        }
        assert_eq!(outcomes(claims).await, (1, vec!["unknownToken"]), "round {round}");
        let (of_b, of_c) = (trusted(&store, b).await.len(), trusted(&store, c).await.len());
        assert_eq!((trusted(&store, a).await.len(), of_b + of_c), (1, 1));
        store.revoke(a, "X").await.unwrap();
    }
}

pub(super) async fn of_many_at_once_one_gets_the_name(store: Store) {
    let mut attempts = JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        attempts.spawn(async move { store.create("alice", "hash").await });
    }
    assert_eq!(outcomes(attempts).await, (1, vec!["nameTaken"; 19]));
    let [b, c] = named(&store, ["b", "c"]).await;
    let mut attempts = JoinSet::new();
    for round in 0..20 {
        let store = store.clone();
        let (a, b) = if round % 2 == 0 { (b, c) } else { (c, b) };
        attempts.spawn(async move { store.trust(a, "x", b, "x").await });
    }
    assert_eq!(outcomes(attempts).await, (1, vec!["alreadyTrusted"; 19]));
}

pub(super) async fn invitations_are_accepted_once(store: Store) {
    let [a] = named(&store, ["a"]).await;
    let accept = async |number, name, now| store.accept_invite(digest(number), name, "hash", now).await;
    store.add_invite(invite(1, a), None, noon()).await.unwrap();
    assert_eq!(code(store.add_invite(invite(2, NOBODY), None, noon()).await), "unknownAccount");
    assert_eq!(code(store.check_invite(digest(2), noon()).await), "unknownToken");
    assert_eq!(code(accept(2, "b", noon()).await), "unknownToken");
    assert_eq!(code(store.check_invite(digest(1), noon() + HOUR).await), "expired");
    assert_eq!(code(accept(1, "b", noon() + HOUR).await), "expired");
    assert_eq!(code(accept(1, "a", noon()).await), "nameTaken");
    store.check_invite(digest(1), noon()).await.unwrap();
    let b = accept(1, "b", noon()).await.unwrap();
    let account = Account { id: b, name: "b".into(), password_hash: "hash".into(), is_active: true, epoch: 0 };
    assert_eq!(store.by_name("b").await.unwrap(), Some(account));
    assert_eq!(code(store.check_invite(digest(1), noon()).await), "unknownToken");
    assert_eq!(code(accept(1, "c", noon()).await), "unknownToken");
}

pub(super) async fn of_two_who_accept_an_invitation_one_succeeds(store: Store) {
    let [a] = named(&store, ["a"]).await;
    for round in 0..20 {
        store.add_invite(invite(round, a), None, noon()).await.unwrap();
        let mut attempts = JoinSet::new();
        for who in 0..2 {
            let store = store.clone();
            let name = format!("{round} {who}");
            attempts.spawn(async move { store.accept_invite(digest(round), &name, "hash", noon()).await });
        }
        assert_eq!(outcomes(attempts).await, (1, vec!["unknownToken"]));
    }
    assert_eq!(store.list(None, 100).await.unwrap().len(), 21);
}

pub(super) async fn what_belongs_to_an_account_goes_with_it(store: Store) {
    let [a, b, c] = named(&store, ["a", "b", "c"]).await;
    store.trust(a, "B", b, "A").await.unwrap();
    store.trust(c, "A", a, "C").await.unwrap();
    store.trust(b, "C", c, "B").await.unwrap();
    store.add_token(token(1, a, "D"), None, noon()).await.unwrap();
    store.add_invite(invite(1, a), None, noon()).await.unwrap();
    let mut ended = store.delete(a, None).await.unwrap();
    ended.sort_by_key(|trust| trust.b);
    let trust = |b, alias_of_b: &str| Trust { a, alias_of_b: alias_of_b.into(), b, alias_of_a: "A".into() };
    assert_eq!(ended, [trust(b, "B"), trust(c, "C")]);
    assert_eq!((store.by_name("a").await.unwrap(), store.by_id(a).await.unwrap()), (None, None));
    assert_eq!((trusted(&store, b).await, trusted(&store, c).await), (vec![("C".into(), c)], vec![("B".into(), b)]));
    assert_eq!(code(store.claim(digest(1), b, None, "A", noon()).await), "unknownToken");
    assert_eq!(code(store.check_invite(digest(1), noon()).await), "unknownToken");
    assert_eq!(code(store.delete(a, None).await), "unknownAccount");

    let last = store.create("d", "hash").await.unwrap();
    store.delete(last, None).await.unwrap();
    assert_ne!(store.create("d", "hash").await.unwrap(), last, "ids are never given twice");
}

pub(super) async fn there_are_so_many_open_tokens_and_invitations(store: Store) {
    let [a, b] = named(&store, ["a", "b"]).await;
    for number in 0..MAX_OPEN_TOKENS as u64 {
        store.add_token(token(number, a, "X"), None, noon()).await.unwrap();
        store.add_invite(invite(number, a), None, noon()).await.unwrap();
    }
    assert_eq!(code(store.add_token(token(1000, a, "X"), None, noon()).await), "tooMany");
    assert_eq!(code(store.add_invite(invite(1000, a), None, noon()).await), "tooMany");
    store.add_token(token(1000, b, "X"), None, noon()).await.unwrap();
    store.add_invite(invite(1000, b), None, noon()).await.unwrap();
    // Those are over by then.
    let later = NewToken { expires: noon() + 2 * HOUR, ..token(1001, a, "X") };
    store.add_token(later, None, noon() + HOUR).await.unwrap();
    let later = NewInvite { expires: noon() + 2 * HOUR, ..invite(1001, a) };
    store.add_invite(later, None, noon() + HOUR).await.unwrap();
    store.claim(digest(0), b, None, "A", noon()).await.unwrap();
}

pub(super) async fn there_are_so_many_trusted_accounts(store: Store) {
    let [a, b] = named(&store, ["a", "b"]).await;
    for number in 0..MAX_TRUSTED {
        let name = number.to_string();
        let other = store.create(&name, "hash").await.unwrap();
        store.trust(a, &name, other, "A").await.unwrap();
    }
    assert_eq!(code(store.trust(a, "B", b, "A").await), "tooMany");
    assert_eq!(code(store.trust(b, "A", a, "B").await), "tooMany");
    store.add_token(token(1, a, "B"), None, noon()).await.unwrap();
    assert_eq!(code(store.claim(digest(1), b, None, "A", noon()).await), "tooMany");
    assert_eq!(store.trusted(a).await.unwrap().len(), MAX_TRUSTED);
    store.revoke(a, "0").await.unwrap();
    store.claim(digest(1), b, None, "A", noon()).await.unwrap();
    assert_eq!(store.delete(a, None).await.unwrap().len(), MAX_TRUSTED);
    assert_eq!(trusted(&store, b).await, []);
}

pub(super) async fn what_has_expired_is_forgotten(store: Store) {
    let [a, b] = named(&store, ["a", "b"]).await;
    store.add_token(token(1, a, "B"), None, noon()).await.unwrap();
    store.add_invite(invite(1, a), None, noon()).await.unwrap();
    store.forget_expired(noon() + HOUR).await.unwrap();
    let late = noon() + 2 * HOUR;
    assert_eq!(code(store.claim(digest(1), b, None, "A", late).await), "expired");
    assert_eq!(code(store.check_invite(digest(1), late).await), "expired");
    store.forget_expired(noon() + HOUR + Duration::from_nanos(1)).await.unwrap();
    assert_eq!(code(store.claim(digest(1), b, None, "A", late).await), "unknownToken");
    assert_eq!(code(store.check_invite(digest(1), late).await), "unknownToken");
}
