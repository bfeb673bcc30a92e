//! What becomes of wrong passwords.

use super::*;

#[tokio::test(start_paused = true)]
async fn wrong_passwords_are_throttled_without_hashing() {
    let (accounts, passwords, _) = accounts().await;
    accounts.create("bob", PASSWORD).await.unwrap();
    let mut throttled = 0;
    for number in 0..10_000 {
        match accounts.log_in("alice", &format!("wrong {number}"), HOME).await {
            Err(LoginError::Throttled { retry_after }) => {
                assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(30));
                throttled += 1;
            }
            other => assert!(matches!(other, Err(LoginError::Wrong))),
        }
    }
    assert_eq!((passwords.checked(), throttled), (10, 9_990));
    assert!(matches!(accounts.log_in("alice", PASSWORD, HOME).await, Err(LoginError::Throttled { .. })));
    assert!(accounts.log_in("alice", PASSWORD, ELSEWHERE).await.is_ok());
    assert!(accounts.log_in("bob", PASSWORD, HOME).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn attempts_at_once_do_not_get_past_the_throttle() {
    let (accounts, passwords, _) = accounts().await;
    let crowd: Vec<_> = (0..200)
        .map(|number| {
            let accounts = accounts.clone();
            tokio::spawn(async move { accounts.log_in("alice", &format!("wrong {number}"), HOME).await.is_err() })
        })
        .collect();
    for attempt in crowd {
        assert!(attempt.await.unwrap());
    }
    let at_once = std::thread::available_parallelism().unwrap().get();
    assert!(passwords.checked() < 10 + at_once, "{}", passwords.checked());
}

/// They try the old one, all at once.
#[tokio::test(start_paused = true)]
async fn sessions_that_do_not_know_the_new_password_do_not_lock_their_owner_out() {
    let (accounts, passwords, _) = accounts().await;
    accounts.log_in("alice", PASSWORD, HOME).await.unwrap();
    accounts.set_password("alice", "another horse").await.unwrap();
    let before = passwords.checked();
    let sessions: Vec<_> = (0..300)
        .map(|_| {
            let accounts = accounts.clone();
            tokio::spawn(async move { accounts.log_in("alice", PASSWORD, HOME).await })
        })
        .collect();
    let mut wrong = 0;
    for session in sessions {
        match session.await.unwrap() {
            Err(LoginError::Wrong) => wrong += 1,
            other => assert!(matches!(other, Err(LoginError::Throttled { .. } | LoginError::Busy)), "{other:?}"),
        }
    }
    // The first one, the burst of an address, and those that were under way at once.
    let at_once = std::thread::available_parallelism().unwrap().get();
    let checked = passwords.checked() - before;
    assert!(wrong >= 101 && checked <= 101 + at_once, "{wrong} of {checked}");
    assert!(accounts.log_in("alice", "another horse", HOME).await.is_ok());
}

#[tokio::test]
async fn a_password_that_was_wrong_may_be_right_later() {
    let (accounts, _, _) = accounts().await;
    for _ in 0..20 {
        assert!(matches!(accounts.log_in("alice", "another horse", HOME).await, Err(LoginError::Wrong)));
    }
    accounts.set_password("alice", "another horse").await.unwrap();
    assert!(accounts.log_in("alice", "another horse", HOME).await.is_ok());
}

#[tokio::test]
async fn an_attempt_that_nobody_waits_for_is_counted() {
    let (accounts, passwords, _) = accounts().await;
    for number in 0..10 {
        let before = passwords.checked();
        let attempt = tokio::spawn({
            let accounts = accounts.clone();
            async move { accounts.log_in("alice", &format!("wrong {number}"), HOME).await }
        });
        while passwords.checked() == before {
            tokio::task::yield_now().await;
        }
        attempt.abort();
        let _ = attempt.await;
    }
    // The tenth is counted when its thread lets go of its place.
    while accounts.0.attempts.is_at_work() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(accounts.log_in("alice", PASSWORD, HOME).await, Err(LoginError::Throttled { .. })));
}
