import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

/** `npm run dev` shows the dashboard of a mesh that runs here; the gateway must allow this page: `--cors-origin http://127.0.0.1:5173`. */
const gateway = process.env.MEMHARVEST_URL ?? 'http://127.0.0.1:8080';

export default defineConfig({
  plugins: [svelte()],
  build: { target: 'es2022', modulePreload: false, cssCodeSplit: false },
  server: { proxy: { '^/(memharvest\\.|api/|oidc/)': { target: gateway, changeOrigin: false } } },
});
