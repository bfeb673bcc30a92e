//! Who the other side is: proofs of identity in offers and answers, see [`crate::protocol::proof`].

use serde_json::Value;

use super::negotiate::Negotiation;
use super::{NodeId, Phase, Settings, Tree};
use crate::error::CloseReason;
use crate::protocol::proof::{Confirmation, Offered, ProofError, Terms};
use crate::protocol::signal::{Description, Extension};

impl Negotiation {
    /// What goes with our description, and, in an answer, what is to be confirmed. Nothing towards an original.
    pub(super) fn prove(
        &mut self,
        settings: &Settings,
        data: &Value,
        sdp: &str,
    ) -> Result<(Option<Extension>, Option<Confirmation>), ProofError> {
        let (Some(session), Some(nonce)) = (self.session, self.nonce) else { return Ok((None, None)) };
        let Settings { window, max_message, identity, .. } = settings;
        let terms = Terms { session, window: *window, max_message: Some(*max_message) };
        let (proof, confirmation) = match &self.offered {
            Some(offered) if !self.is_ours() => {
                let (proof, confirmation) = offered.sign_answer(identity, nonce, terms, sdp)?;
                (proof, Some(confirmation))
            }
            _ => {
                let (proof, offered) = Offered::sign(identity, nonce, terms, data, sdp)?;
                self.offered = Some(offered);
                (proof, None)
            }
        };
        Ok((Some(Extension::new(terms, proof)), confirmation))
    }
}

impl<P: Clone> Tree<P> {
    /// The proof of an offer; none if an original makes it.
    pub(super) fn verify_offer(
        &self,
        description: &Description,
        data: &Value,
        ext: Option<&Extension>,
    ) -> Result<Option<Offered>, ProofError> {
        match ext {
            None if self.settings.require_identity => Err(ProofError::Missing),
            None => Ok(None),
            Some(ext) => {
                let proof = ext.identity.as_ref().ok_or(ProofError::Missing)?;
                Offered::verify(proof, ext.terms(), data, &description.sdp).map(Some)
            }
        }
    }

    /// Who answers an offer of ours, and what is to be confirmed; nothing if an original does.
    pub(super) fn verify_answer(
        &self,
        node: NodeId,
        description: &Description,
        ext: Option<&Extension>,
    ) -> Result<Option<Confirmation>, CloseReason> {
        let Some(entry) = self.nodes.get(&node) else { return Ok(None) };
        let Phase::Negotiating(negotiation) = &entry.phase else { return Ok(None) };
        let confirmation = match (ext, &negotiation.offered) {
            (Some(ext), Some(offered)) => {
                let proof = ext.identity.as_ref().ok_or(ProofError::Missing).map_err(unverified)?;
                let identity = &self.settings.identity;
                let confirmation =
                    offered.verify_answer(identity, proof, ext.terms(), &description.sdp).map_err(unverified)?;
                if confirmation.peer_id() == identity.peer_id() {
                    return Err(CloseReason::OwnAddress);
                }
                Some(confirmation)
            }
            (Some(_), None) => return Err(unverified(ProofError::Missing)),
            (None, _) => None,
        };
        let found = confirmation.as_ref().map(Confirmation::peer_id);
        if let Some(reason) = entry.dial.as_ref().and_then(|dial| dial.turns_down(found)) {
            return Err(reason);
        }
        if found.is_none() && self.settings.require_identity {
            return Err(CloseReason::NoIdentity);
        }
        Ok(confirmation)
    }
}

fn unverified(error: ProofError) -> CloseReason {
    CloseReason::Unverified(error.to_string())
}
