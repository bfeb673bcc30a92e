// A discovery server as the README of BoneValue (p2p-platform) describes it. This is a reconstruction from that text and not the
// original, which keeps accounts in MongoDB and is in no package registry: here accounts are in memory, as many as are asked for in a
// ring, where each trusts its neighbours on both sides. Passwords are hashed by node's scrypt at its default cost, off the main thread,
// where the original uses bcrypt.
//
//   node --expose-gc server.mjs ACCOUNTS TRUSTED PASSWORD
//
// The first line on standard output is its address. SIGUSR2 collects garbage.
import { randomBytes, scrypt, scryptSync, timingSafeEqual } from 'node:crypto'
import http from 'node:http'
import websocket from 'websocket'

const [count, trusted] = process.argv.slice(2, 4).map(Number)
const password = process.argv[4]
const salt = randomBytes(16)
// All have the same password, so that the ring is there at once. Logging in costs the same.
const hash = scryptSync(password, salt, 64)
const users = new Map()
for (let i = 0; i < count; i++) {
  const aliases = []
  for (let k = 1; k <= trusted / 2; k++) aliases.push(`user${(i + k) % count}`, `user${(i - k + count) % count}`)
  users.set(`user${i}`, { name: `user${i}`, salt, hash, trusted: aliases, peers: new Set() })
}

const peers = {}
const say = (socket, type, data) => socket.send(JSON.stringify({ type, data }))

/** Calls `each` with the alias by which it knows `user`, and the number, of every peer that may reach those of `user`. */
function toOthers(user, own, each) {
  for (const id of user.peers) if (id !== own) each(id, 'Us')
  // In this ring everybody is known by their name.
  for (const alias of user.trusted) for (const id of users.get(alias).peers) each(id, user.name)
}

function welcome(user, socket) {
  const peerId = Math.floor(Math.random() * 9999999999999)
  const present = []
  for (const id of user.peers) present.push({ name: 'Us', id })
  for (const alias of user.trusted) for (const id of users.get(alias).peers) present.push({ name: alias, id })
  peers[peerId] = socket
  user.peers.add(peerId)
  say(socket, 'userAdd', 'Us')
  say(socket, 'setPeerId', { peerId })
  say(socket, 'userList', user.trusted)
  say(socket, 'peerList', present)
  toOthers(user, peerId, (id, name) => say(peers[id], 'peerConnect', { name, id: peerId }))
  socket.on('message', (message) => {
    const json = JSON.parse(message.utf8Data)
    const data = json.data
    switch (json.type) {
      case 'peerRequest':
      case 'peerResponse': {
        const client = peers[data.to]
        if (client) say(client, json.type, data)
        break
      }
    }
  })
  socket.on('close', () => {
    delete peers[peerId]
    user.peers.delete(peerId)
    toOthers(user, peerId, (id) => say(peers[id], 'peerDisconnect', peerId))
  })
}

const server = http.createServer((_, response) => response.writeHead(404).end())
const mainSocket = new websocket.server({ httpServer: server })
mainSocket.on('request', (request) => {
  const cookie = (name) => unescape(request.cookies.find((cookie) => cookie.name === name)?.value ?? '')
  const user = users.get(cookie('uun'))
  if (!user) return request.reject(403)
  scrypt(cookie('ppz'), user.salt, 64, (error, key) => {
    if (error || !timingSafeEqual(key, user.hash)) return request.reject(403)
    welcome(user, request.accept(null, request.origin))
  })
})
process.on('SIGUSR2', () => globalThis.gc?.())
server.listen(0, '127.0.0.1', 4096, () => console.log(`listening on ws://127.0.0.1:${server.address().port}`))
