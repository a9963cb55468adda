// Talks to the server at the URL in the arguments twice: with the library's own
// choice of transports, and with long polls alone. Prints what happened as JSON.
import dns from 'node:dns'
import { io } from 'socket.io-client'

// Every host is this machine: NAME.localhost does not resolve everywhere.
dns.lookup = (_host, options, done) => {
  if (typeof options === 'function') done = options
  if (options.all) return done(null, [{ address: '127.0.0.1', family: 4 }])
  return done(null, '127.0.0.1', 4)
}

const fail = (err) => {
  console.error(err)
  process.exit(1)
}
setTimeout(() => fail(new Error('no end')), 25000).unref()

const talk = async (options, upgrade) => {
  const socket = io(process.argv[2], { ...options, forceNew: true, reconnection: false })
  const { engine } = socket.io
  const seen = { first: '', welcome: '', pushed: 0, last: '', echo: [] }
  engine.once('open', () => { seen.first = engine.transport.name })
  const upgraded = upgrade && new Promise((resolve) => engine.once('upgrade', resolve))
  socket.on('connect_error', fail)
  socket.on('disconnect', fail)
  const welcome = new Promise((resolve) => socket.on('welcome', resolve))

  seen.welcome = await welcome
  await upgraded
  seen.last = engine.transport.name
  const pushed = new Promise((resolve) => socket.on('pushed', (n) => {
    if (n !== seen.pushed + 1) fail(new Error(`message ${n} after ${seen.pushed}`))
    seen.pushed = n
    if (n === 100) resolve()
  }))
  socket.emit('push', 100)
  seen.echo = await new Promise((resolve) => {
    socket.emit('echo', 'text', Buffer.from([1, 2, 3]), (text, bytes, transport) => resolve([text, ...bytes, transport]))
  })
  await pushed
  socket.off('disconnect').close()
  return seen
}

const chosen = await talk({}, true)
const polls = await talk({ transports: ['polling'] }, false)
console.log(JSON.stringify({ chosen, polls }))
process.exit(0)
