//! The firewall: what decides, offer by offer, who may connect.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::identity::PeerId;
use crate::protocol::Address;

/// An incoming connection offer, as a firewall sees it.
///
/// Cheap to clone. One can be made by hand, to test a policy without a network:
///
/// ```
/// use pmesh::{Address, Offer, Policy, Verdict};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pmesh::InvalidAddress> {
/// let policy = Policy::new(|offer: &Offer| offer.data() == &json!("secret"));
/// let offer = Offer::new(Address::new("alice")?, Address::new("ws://onramp")?);
/// assert_eq!(policy.check(&offer).await, Verdict::Refuse);
/// assert_eq!(policy.check(&offer.with_data("secret")).await, Verdict::Accept);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    from: Address,
    via: Address,
    data: Arc<Value>,
    peer_id: Option<PeerId>,
}

impl Offer {
    /// An offer without data, from a peer, introduced by a node.
    pub fn new(from: Address, via: Address) -> Self {
        Self { from, via, data: Arc::new(Value::Null), peer_id: None }
    }

    /// The same offer from a peer with this id.
    #[must_use]
    pub fn with_peer_id(mut self, peer_id: PeerId) -> Self {
        self.peer_id = Some(peer_id);
        self
    }

    /// The same offer with this data.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<Value>) -> Self {
        self.data = Arc::new(data.into());
        self
    }

    /// The address of the peer that wants to connect, as the introducer names it. The introducer can lie.
    pub fn from(&self) -> &Address {
        &self.from
    }

    /// The address of the node that introduces the peer: an onramp's URL or a peer's address.
    pub fn via(&self) -> &Address {
        &self.via
    }

    /// Who makes the offer; `None` for an original P, and for whoever passes for one.
    ///
    /// The peer has signed its key, its certificate and its [data](Self::data), so the introducer has made or altered none of them. If
    /// it is an old one that is being repeated, or another holds the connection's certificate, no connection comes of it:
    /// a node is open only when its peer has proven its id once more over the connection itself.
    ///
    /// ```
    /// use std::collections::HashSet;
    /// use pmesh::{Offer, PeerId, Root};
    ///
    /// let friends: HashSet<PeerId> = HashSet::new();
    /// let builder = Root::builder().firewall(move |offer: &Offer| {
    ///     offer.peer_id().is_some_and(|peer| friends.contains(&peer))
    /// });
    /// ```
    pub fn peer_id(&self) -> Option<PeerId> {
        self.peer_id
    }

    /// The data that the peer sent with its offer; `null` if it sent none. The introducer can read it, and where there is
    /// no [`peer_id`](Self::peer_id), change it. Where there is one, numbers come as JavaScript has them: as integers up to 2^53,
    /// otherwise as 64-bit floats.
    pub fn data(&self) -> &Value {
        &self.data
    }
}

/// What a firewall says to an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Let the peer connect.
    Accept,
    /// Say no. A pmesh peer hears of it at once; an original P runs into its own timeout.
    Refuse,
    /// Say that there is no room now. A pmesh peer hears of it at once, as [`ConnectError::Busy`](crate::ConnectError::Busy), and may
    /// call again later; for an original P it is as with `Refuse`.
    Busy,
    /// Say nothing: the peer cannot tell that a firewall was asked. (Offers that no firewall is asked about are answered: those
    /// with a proof of identity that does not fit, or while too many go on.)
    Ignore,
}

impl From<bool> for Verdict {
    /// `true` accepts, `false` refuses.
    fn from(accept: bool) -> Self {
        if accept { Self::Accept } else { Self::Refuse }
    }
}

/// Decides on offers.
///
/// Every closure from `&Offer` to something that is a [`Verdict`] (or `bool`) is a firewall; for async closures see
/// [`Policy::new_async`]. A firewall is asked once for each offer, before anything is made for the connection, and never
/// under a lock. Offers are asked about at the same time. A firewall that panics, or takes longer than the accept timeout
/// of the root, refuses.
///
/// For a firewall with more to it than a closure, implement the trait, with the crate `async-trait`:
///
/// ```
/// use std::collections::HashSet;
/// use pmesh::{Address, Firewall, Offer, Root, Verdict};
///
/// /// Only certain nodes may introduce peers; others get no answer.
/// struct Introducers(HashSet<Address>);
///
/// #[async_trait::async_trait]
/// impl Firewall for Introducers {
///     async fn check(&self, offer: &Offer) -> Verdict {
///         if self.0.contains(offer.via()) { Verdict::Accept } else { Verdict::Ignore }
///     }
/// }
///
/// let builder = Root::builder().firewall(Introducers(HashSet::new()));
/// ```
#[async_trait]
pub trait Firewall: Send + Sync + 'static {
    /// Decides on one offer. The future is dropped if the decision is not needed any more, so it should be cancel safe.
    async fn check(&self, offer: &Offer) -> Verdict;
}

#[async_trait]
impl<F, V> Firewall for F
where
    F: Fn(&Offer) -> V + Send + Sync + 'static,
    V: Into<Verdict>,
{
    async fn check(&self, offer: &Offer) -> Verdict {
        self(offer).into()
    }
}

/// A firewall that can be shared and composed.
///
/// Cloning shares the firewall and its state: a counter in a closure counts for all clones.
///
/// ```
/// use pmesh::{Offer, Policy};
///
/// let secret = Policy::new(|offer: &Offer| offer.data()["secret"] == "swordfish");
/// let banned = Policy::new(|offer: &Offer| offer.data()["name"] == "mallory");
/// let policy = secret.and(!banned);
/// ```
#[derive(Clone)]
pub struct Policy(Arc<dyn Firewall>);

impl Policy {
    /// A policy from a closure or any other [`Firewall`].
    pub fn new(firewall: impl Firewall) -> Self {
        Self(Arc::new(firewall))
    }

    /// A policy from an async closure, for example one that looks the peer up in a database.
    ///
    /// ```
    /// # use pmesh::{Offer, Policy};
    /// # async fn look_up(name: String) -> bool { true }
    /// let policy = Policy::new_async(|offer: Offer| async move {
    ///     match offer.data().as_str() {
    ///         Some(name) => look_up(name.to_owned()).await,
    ///         None => false,
    ///     }
    /// });
    /// ```
    pub fn new_async<F, T>(closure: F) -> Self
    where
        F: Fn(Offer) -> T + Send + Sync + 'static,
        T: Future + Send + 'static,
        T::Output: Into<Verdict>,
    {
        Self::new(AsyncClosure(move |offer| {
            let verdict = closure(offer);
            Box::pin(async move { verdict.await.into() }) as Pin<Box<dyn Future<Output = Verdict> + Send>>
        }))
    }

    /// Accepts everybody. The default of a root, as in the original.
    pub fn accept_all() -> Self {
        Self::new(|_: &Offer| Verdict::Accept)
    }

    /// Refuses everybody.
    pub fn refuse_all() -> Self {
        Self::new(|_: &Offer| Verdict::Refuse)
    }

    /// Accepts what both accept. The other is asked only if this one accepts; otherwise this one's verdict stands.
    #[must_use]
    pub fn and(self, other: impl Firewall) -> Self {
        Self::new(And(self, Self::new(other)))
    }

    /// Accepts what either accepts. The other is asked only if this one does not accept; then its verdict stands.
    #[must_use]
    pub fn or(self, other: impl Firewall) -> Self {
        Self::new(Or(self, Self::new(other)))
    }

    /// Accepts what this one does not accept, and refuses what it accepts. Also as the operator `!`.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "the trait is implemented too")]
    pub fn not(self) -> Self {
        Self::new(Not(self))
    }

    /// Decides on one offer, as a root would.
    pub async fn check(&self, offer: &Offer) -> Verdict {
        self.0.check(offer).await
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::accept_all()
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policy")
    }
}

impl std::ops::Not for Policy {
    type Output = Self;
    fn not(self) -> Self {
        Policy::not(self)
    }
}

#[async_trait]
impl Firewall for Policy {
    async fn check(&self, offer: &Offer) -> Verdict {
        self.0.check(offer).await
    }
}

struct AsyncClosure<F>(F);

#[async_trait]
impl<F> Firewall for AsyncClosure<F>
where
    F: Fn(Offer) -> Pin<Box<dyn Future<Output = Verdict> + Send>> + Send + Sync + 'static,
{
    async fn check(&self, offer: &Offer) -> Verdict {
        (self.0)(offer.clone()).await
    }
}

struct And(Policy, Policy);

#[async_trait]
impl Firewall for And {
    async fn check(&self, offer: &Offer) -> Verdict {
        match self.0.check(offer).await {
            Verdict::Accept => self.1.check(offer).await,
            no => no,
        }
    }
}

struct Or(Policy, Policy);

#[async_trait]
impl Firewall for Or {
    async fn check(&self, offer: &Offer) -> Verdict {
        match self.0.check(offer).await {
            Verdict::Accept => Verdict::Accept,
            _ => self.1.check(offer).await,
        }
    }
}

struct Not(Policy);

#[async_trait]
impl Firewall for Not {
    async fn check(&self, offer: &Offer) -> Verdict {
        match self.0.check(offer).await {
            Verdict::Accept => Verdict::Refuse,
            Verdict::Refuse | Verdict::Busy | Verdict::Ignore => Verdict::Accept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn offer() -> Offer {
        Offer::new(Address::new("a").unwrap(), Address::new("v").unwrap())
    }

    #[tokio::test]
    async fn composition() {
        let accept = Policy::accept_all;
        let refuse = Policy::refuse_all;
        let ignore = || Policy::new(|_: &Offer| Verdict::Ignore);
        for (policy, verdict) in [
            (accept().and(accept()), Verdict::Accept),
            (accept().and(refuse()), Verdict::Refuse),
            (ignore().and(accept()), Verdict::Ignore),
            (refuse().or(accept()), Verdict::Accept),
            (refuse().or(ignore()), Verdict::Ignore),
            (accept().or(refuse()), Verdict::Accept),
            (!accept(), Verdict::Refuse),
            (!refuse(), Verdict::Accept),
            (!ignore(), Verdict::Accept),
            (!(refuse().or(accept().and(ignore()))), Verdict::Accept),
        ] {
            assert_eq!(policy.check(&offer()).await, verdict);
        }
    }

    #[tokio::test]
    async fn the_second_is_asked_only_where_it_matters() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = {
            let asked = asked.clone();
            Policy::new(move |_: &Offer| asked.fetch_add(1, Ordering::Relaxed) < 1)
        };
        Policy::refuse_all().and(count.clone()).check(&offer()).await;
        Policy::accept_all().or(count.clone()).check(&offer()).await;
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        // State is shared between clones.
        assert_eq!(count.clone().check(&offer()).await, Verdict::Accept);
        assert_eq!(count.check(&offer()).await, Verdict::Refuse);
    }

    #[tokio::test]
    async fn async_closures() {
        let policy = Policy::new_async(|offer: Offer| async move {
            tokio::task::yield_now().await;
            offer.data().as_u64() == Some(1)
        });
        assert_eq!(policy.check(&offer().with_data(1)).await, Verdict::Accept);
        assert_eq!(policy.check(&offer().with_data(2)).await, Verdict::Refuse);
    }
}
