//! Flow control by consumption: what is sent but not yet consumed by the other application stays below a window.
//!
//! SCTP acknowledges what has arrived, not what has been read, and its window reopens only by a timer once it has closed
//! (RFC 9260 section 6.1, rule A). So the receiver always takes everything off the wire, and tells the sender how much
//! the application has consumed. What a packet costs is said in [`super::packet`]; one that costs no bytes is not counted
//! as a packet either.

/// The receiver granted more than was outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more credit granted than used")]
pub(crate) struct CreditError;

/// The sender's side.
#[derive(Debug, Clone)]
pub(crate) struct SendCredit {
    window: (u32, u32),
    used: (u32, u32),
}

impl SendCredit {
    /// Nothing outstanding, with the window that the receiver announced.
    pub(crate) fn new(bytes: u32, packets: u32) -> Self {
        Self { window: (bytes, packets), used: (0, 0) }
    }

    /// Bytes that the next packet may carry. Zero if no packet may be sent.
    pub(crate) fn room(&self) -> usize {
        if self.used.1 >= self.window.1 { 0 } else { (self.window.0 - self.used.0) as usize }
    }

    /// Bytes that may be outstanding.
    pub(crate) fn window(&self) -> usize {
        self.window.0 as usize
    }

    /// Notes a packet sent at that cost, at most [`room`](Self::room).
    pub(crate) fn charge(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.room());
        if bytes > 0 {
            self.used.0 += bytes as u32;
            self.used.1 += 1;
        }
    }

    /// Notes what the receiver's application has consumed.
    ///
    /// # Errors
    ///
    /// [`CreditError`] if that is more than was outstanding; nothing is changed then.
    pub(crate) fn grant(&mut self, bytes: u32, packets: u32) -> Result<(), CreditError> {
        let used = (self.used.0.checked_sub(bytes), self.used.1.checked_sub(packets));
        let (Some(bytes), Some(packets)) = used else { return Err(CreditError) };
        self.used = (bytes, packets);
        Ok(())
    }
}

/// The receiver's side: what has arrived, and what has been consumed but not yet granted.
#[derive(Debug, Clone)]
pub(crate) struct ReceiveCredit {
    window: (u32, u32),
    outstanding: (u32, u32),
    consumed: (u32, u32),
}

impl ReceiveCredit {
    /// Nothing outstanding, with the window that this side announced.
    pub(crate) fn new(bytes: u32, packets: u32) -> Self {
        Self { window: (bytes, packets), outstanding: (0, 0), consumed: (0, 0) }
    }

    /// Notes a packet that arrived.
    ///
    /// # Errors
    ///
    /// [`CreditError`] if the sender had no credit for it: it does not keep to the protocol.
    pub(crate) fn arrived(&mut self, bytes: usize) -> Result<(), CreditError> {
        if bytes == 0 {
            return Ok(());
        }
        let bytes = u32::try_from(bytes).map_err(|_| CreditError)?;
        let total = self.outstanding.0.checked_add(bytes).ok_or(CreditError)?;
        if total > self.window.0 || self.outstanding.1 >= self.window.1 {
            return Err(CreditError);
        }
        self.outstanding = (total, self.outstanding.1 + 1);
        Ok(())
    }

    /// Notes a packet that the application has consumed. Returns whether enough has come together for a grant.
    pub(crate) fn consumed(&mut self, bytes: usize) -> bool {
        if bytes > 0 {
            self.consumed.0 += bytes as u32;
            self.consumed.1 += 1;
        }
        self.grant_is_due()
    }

    /// Whether a quarter of the window waits to be granted.
    pub(crate) fn grant_is_due(&self) -> bool {
        self.consumed.0 >= (self.window.0 / 4).max(1) || self.consumed.1 >= (self.window.1 / 4).max(1)
    }

    /// Whether so much waits to be granted that it is worth a record in a packet that goes anyway.
    pub(crate) fn grant_may_ride(&self) -> bool {
        self.consumed.0 >= (self.window.0 / 16).max(1) || self.consumed.1 >= (self.window.1 / 16).max(1)
    }

    /// Takes what is to be granted now, if anything.
    pub(crate) fn take_grant(&mut self) -> Option<(u32, u32)> {
        let grant = std::mem::take(&mut self.consumed);
        if grant == (0, 0) {
            return None;
        }
        self.outstanding.0 -= grant.0;
        self.outstanding.1 -= grant.1;
        Some(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn a_hostile_grant_and_a_hostile_packet() {
        let mut send = SendCredit::new(100, 2);
        send.charge(60);
        assert_eq!(send.grant(61, 1), Err(CreditError));
        assert_eq!(send.grant(60, 2), Err(CreditError));
        assert_eq!(send.room(), 40);
        let mut receive = ReceiveCredit::new(100, 2);
        assert_eq!(receive.arrived(101), Err(CreditError));
        assert_eq!(receive.arrived(1), Ok(()));
        assert_eq!(receive.arrived(1), Ok(()));
        assert_eq!(receive.arrived(1), Err(CreditError));
        assert_eq!(receive.arrived(0), Ok(()));
    }

    proptest! {
        /// However sending, consuming and the arrival of grants interleave, the sender never exceeds the window, never
        /// stays stuck once all is consumed, and the two sides agree.
        #[test]
        fn any_interleaving(
            window in (1u32..2000, 1u32..20),
            steps in proptest::collection::vec((0u8..3, 1usize..700), 0..200),
        ) {
            let mut send = SendCredit::new(window.0, window.1);
            let mut receive = ReceiveCredit::new(window.0, window.1);
            let mut queue: VecDeque<usize> = VecDeque::new();
            let mut grants: VecDeque<(u32, u32)> = VecDeque::new();
            for (step, size) in steps {
                match step {
                    0 => {
                        let bytes = size.min(send.room());
                        if bytes > 0 {
                            send.charge(bytes);
                            prop_assert_eq!(receive.arrived(bytes), Ok(()));
                            queue.push_back(bytes);
                        }
                    }
                    1 => {
                        if let Some(bytes) = queue.pop_front() && receive.consumed(bytes) {
                            grants.extend(receive.take_grant());
                        }
                    }
                    _ => {
                        if let Some((bytes, packets)) = grants.pop_front() {
                            prop_assert_eq!(send.grant(bytes, packets), Ok(()));
                        }
                    }
                }
            }
            for bytes in queue.drain(..) {
                if receive.consumed(bytes) {
                    grants.extend(receive.take_grant());
                }
            }
            for (bytes, packets) in grants.drain(..) {
                prop_assert_eq!(send.grant(bytes, packets), Ok(()));
            }
            prop_assert!(send.room() > 0, "stuck although all is consumed");
        }
    }
}
