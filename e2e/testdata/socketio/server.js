// Answers what the client sends, and says first by which transport it came.
import { createServer } from 'node:http'
import { Server } from 'socket.io'

const http = createServer()
const io = new Server(http)

io.on('connection', (socket) => {
  socket.emit('welcome', socket.conn.transport.name)
  socket.on('echo', (text, bytes, answer) => {
    answer(text.toUpperCase(), Buffer.from(bytes).reverse(), socket.conn.transport.name)
  })
  socket.on('push', (count) => {
    for (let i = 1; i <= count; i++) socket.emit('pushed', i)
  })
})

http.listen(0, '127.0.0.1', () => console.log(`listening ${http.address().port}`))
