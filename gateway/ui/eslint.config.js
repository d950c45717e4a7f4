import js from '@eslint/js';
import svelte from 'eslint-plugin-svelte';
import globals from 'globals';
import ts from 'typescript-eslint';

export default ts.config(
  { ignores: ['dist/', 'src/gen/', 'node_modules/'] },
  js.configs.recommended,
  ...ts.configs.recommended,
  ...svelte.configs.recommended,
  { languageOptions: { globals: { ...globals.browser } } },
  { files: ['tests/**', '*.config.*', 'bench/**'], languageOptions: { globals: { ...globals.node } } },
  { files: ['**/*.svelte', '**/*.svelte.ts'], languageOptions: { parserOptions: { parser: ts.parser } } },
  {
    rules: {
      eqeqeq: 'error',
      'no-console': 'error',
      // TypeScript knows what is defined.
      'no-undef': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      // Playwright's fixtures ask for an empty pattern where they need nothing.
      'no-empty-pattern': ['error', { allowObjectPatternsAsParameters: true }],
      // Addresses within the dashboard are plain paths here: there is no base to resolve them against.
      'svelte/no-navigation-without-resolve': 'off',
      // Values that are made anew with each use are not kept anywhere.
      'svelte/prefer-svelte-reactivity': 'off',
    },
  },
);
